//! Reading a file as the disk has it, in bounded memory.

use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes read at a time.
const WINDOW_BYTES: usize = 256 * 1024;

/// A file and the part of it that was read last.
#[derive(Debug)]
pub struct Window {
    pub path: PathBuf,
    file: File,
    pub len: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl Window {
    /// Opens `path` and drops what the page cache holds of it: after a failed fsync, that may never
    /// have reached the disk. Pages that are merely not written yet, as after a killed process, stay
    /// unless `flush` is set, which writes them first.
    pub fn open(path: &Path, flush: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        if flush {
            file.sync_data()?;
        }
        fadvise(&file, 0, None, Advice::DontNeed)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, len, start: 0, buffer: Vec::new() })
    }

    /// The bytes at `at`, fewer than `wanted` only at the end of the file. `wanted` is at most
    /// [`WINDOW_BYTES`].
    pub fn bytes(&mut self, at: u64, wanted: usize) -> io::Result<&[u8]> {
        assert!(wanted <= WINDOW_BYTES, "a window holds no {wanted} bytes");
        let end = at.saturating_add(wanted as u64).min(self.len);
        let held = self.start + self.buffer.len() as u64;
        if at < self.start || end > held {
            self.start = at;
            self.buffer.resize(WINDOW_BYTES, 0);
            let mut filled = 0;
            while filled < WINDOW_BYTES {
                match self.file.read_at(&mut self.buffer[filled..], at + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.buffer.truncate(filled);
        }
        let from = offset_in(at.saturating_sub(self.start)).min(self.buffer.len());
        let to = (from + wanted).min(self.buffer.len());
        Ok(&self.buffer[from..to])
    }

    /// Calls `see` with all bytes from `at` to `end`, in order, in pieces.
    pub fn each(&mut self, mut at: u64, end: u64, mut see: impl FnMut(&[u8])) -> io::Result<()> {
        while at < end {
            let wanted = offset_in((end - at).min(WINDOW_BYTES as u64));
            let piece = self.bytes(at, wanted)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            see(piece);
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// The end of the last byte that is not zero, at or behind `from`; `from` if there is none. Holes
    /// are skipped: fjall makes journals 64 MiB long before it writes to them.
    pub fn end_of_data(&mut self, from: u64) -> io::Result<u64> {
        let mut last = from;
        let mut at = from;
        while let Some((start, end)) = self.extent(at)? {
            let mut place = start;
            self.each(start, end, |piece| {
                if let Some(found) = piece.iter().rposition(|&byte| byte != 0) {
                    last = place + found as u64 + 1;
                }
                place += piece.len() as u64;
            })?;
            at = end;
        }
        Ok(last)
    }

    /// The next stretch at or behind `at` that is not a hole.
    fn extent(&self, at: u64) -> io::Result<Option<(u64, u64)>> {
        if at >= self.len {
            return Ok(None);
        }
        match seek(&self.file, SeekFrom::Data(at)) {
            Ok(start) => {
                let end = seek(&self.file, SeekFrom::Hole(start))?;
                Ok((start < self.len).then_some((start, end.min(self.len))))
            }
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system that knows no holes.
            Err(rustix::io::Errno::INVAL) => Ok(Some((at, self.len))),
            Err(error) => Err(error.into()),
        }
    }
}

fn offset_in(bytes: u64) -> usize {
    usize::try_from(bytes).expect("no larger than a window")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_window_sees_what_is_there_and_where_it_ends() {
        let mut temporary = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..WINDOW_BYTES * 2 + 77).map(|n| u8::try_from(n % 251).unwrap()).collect();
        temporary.write_all(&content).unwrap();
        let sparse = 64 * 1024 * 1024;
        temporary.as_file().set_len(sparse).unwrap();
        let mut window = Window::open(temporary.path(), false).unwrap();
        for at in [0, 1, WINDOW_BYTES - 1, WINDOW_BYTES + 5, 3, content.len() - 10] {
            assert_eq!(window.bytes(at as u64, 10).unwrap(), &content[at..at + 10]);
        }
        let mut seen = Vec::new();
        window.each(5, content.len() as u64, |piece| seen.extend_from_slice(piece)).unwrap();
        assert_eq!(seen, content[5..]);
        assert_eq!(window.end_of_data(0).unwrap(), content.len() as u64);
        let behind = content.len() as u64 + 9;
        assert_eq!(window.end_of_data(behind).unwrap(), behind);
        assert_eq!(window.bytes(sparse - 3, 10).unwrap(), [0; 3]);
        assert_eq!(window.bytes(sparse + 3, 10).unwrap(), []);
    }
}
