//! The frame: what travels on a link, and what a receiver believes of it.
//!
//! ```text
//! magic 2 | format version 2 | length 4 | checksum 8 | payload (postcard), integers little-endian
//! ```
//! The checksum is the XXH3 of the payload, seeded with version and length, so that it covers the
//! header too. TCP's own checksum lets about one bad segment in sixteen million through (Stone and
//! Partridge, 2000), and a frame that decodes to something else would be believed.

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Changes with every change of a message: two pods that differ do not talk.
pub const FORMAT_VERSION: u16 = 7;
/// The largest payload. A round's frame is some hundred KiB; a snapshot comes in parts far smaller
/// than this. What claims to be larger is refused before a byte of it is stored.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;

const MAGIC: [u8; 2] = *b"kF";

/// Why bytes are not a frame. None of them can be mended: the link is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("these bytes are no frame of kassa")]
    NoFrame,
    #[error("format version {theirs} there, {FORMAT_VERSION} here: run one version of kassa on all pods")]
    Version { theirs: u16 },
    #[error("a frame of {bytes} bytes, over the {max} allowed")]
    TooLarge { bytes: usize, max: usize },
    #[error("a frame fails its checksum")]
    Checksum,
    #[error("a frame does not decode")]
    Decode,
}

/// Appends `value` to `buffer` as one frame; on an error `buffer` is as before.
///
/// # Errors
/// [`FrameError::TooLarge`] if the payload is over [`FRAME_BYTES_MAX`].
pub fn encode<T: Serialize>(value: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    let mut grown = std::mem::take(buffer);
    grown.resize(start + HEADER_BYTES, 0);
    *buffer = postcard::to_extend(value, grown).expect("messages have no shape that postcard refuses");
    let bytes = buffer.len() - start - HEADER_BYTES;
    let length = match u32::try_from(bytes) {
        Ok(length) if bytes <= FRAME_BYTES_MAX => length,
        Ok(_) | Err(_) => {
            buffer.truncate(start);
            return Err(FrameError::TooLarge { bytes, max: FRAME_BYTES_MAX });
        }
    };
    let (header, payload) = buffer[start..].split_at_mut(HEADER_BYTES);
    header[..2].copy_from_slice(&MAGIC);
    header[2..4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..].copy_from_slice(&checksum(length, payload).to_le_bytes());
    Ok(())
}

/// Takes the first payload off `buffer` once all of it is there; reserves room for the rest if not.
///
/// # Errors
/// If what is there is not the beginning of a frame of at most `max` bytes.
pub fn split(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    // Random bytes are refused at the first that differs, not once a whole header has come in.
    let seen = buffer.len().min(MAGIC.len());
    if buffer[..seen] != MAGIC[..seen] {
        return Err(FrameError::NoFrame);
    }
    let Some(mut header) = buffer.get(MAGIC.len()..HEADER_BYTES) else { return Ok(None) };
    let (theirs, length, sum) = (header.get_u16_le(), header.get_u32_le(), header.get_u64_le());
    if theirs != FORMAT_VERSION {
        return Err(FrameError::Version { theirs });
    }
    let bytes = length as usize;
    if bytes > max {
        return Err(FrameError::TooLarge { bytes, max });
    }
    if buffer.len() < HEADER_BYTES + bytes {
        buffer.reserve(HEADER_BYTES + bytes - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let payload = buffer.split_to(bytes).freeze();
    if checksum(length, &payload) == sum { Ok(Some(payload)) } else { Err(FrameError::Checksum) }
}

/// What a payload says.
///
/// # Errors
/// [`FrameError::Decode`] if it is not exactly one `T`.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(FrameError::Decode),
    }
}

fn checksum(length: u32, payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, (u64::from(FORMAT_VERSION) << 32) | u64::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(text: &str) -> Vec<u8> {
        let mut buffer = Vec::new();
        encode(&text, &mut buffer).unwrap();
        buffer
    }

    fn read(bytes: &[u8]) -> Result<Option<String>, FrameError> {
        let mut buffer = BytesMut::from(bytes);
        split(&mut buffer, FRAME_BYTES_MAX)?.map(|payload| decode(&payload)).transpose()
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(texts: Vec<String>, cut in 1_usize..40) {
            let mut sent = Vec::new();
            for text in &texts {
                encode(text, &mut sent).unwrap();
            }
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for part in sent.chunks(cut) {
                buffer.extend_from_slice(part);
                while let Some(payload) = split(&mut buffer, FRAME_BYTES_MAX).unwrap() {
                    got.push(decode::<String>(&payload).unwrap());
                }
            }
            prop_assert_eq!(got, texts);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn a_flipped_bit_is_never_believed(text: String, at: prop::sample::Index, bit in 0_u8..8) {
            let mut bytes = framed(&text);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // A length that grew has the reader wait for more; the checksum then fails.
            prop_assert!(!matches!(read(&bytes), Ok(Some(_))));
            bytes.resize(bytes.len() + FRAME_BYTES_MAX + HEADER_BYTES, 0);
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, behind_magic: bool) {
            let mut bytes = bytes;
            if behind_magic {
                bytes.splice(0..0, [b'k', b'F', 1, 0]);
            }
            prop_assert!(!matches!(read(&bytes), Ok(Some(_))));
            let _ = decode::<Vec<(u64, String, Option<Bytes>)>>(&bytes);
        }
    }

    #[test]
    fn four_gibibytes_are_refused_by_the_header_alone() {
        let mut bytes = framed("x");
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes.truncate(HEADER_BYTES);
        let refused = FrameError::TooLarge { bytes: u32::MAX as usize, max: FRAME_BYTES_MAX };
        assert_eq!(read(&bytes), Err(refused));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = framed("x");
        bytes[2] = 9;
        let said = read(&bytes).unwrap_err().to_string();
        assert!(said.starts_with(&format!("format version 9 there, {FORMAT_VERSION} here: ")), "{said}");
    }

    #[test]
    fn what_is_too_large_to_send_leaves_the_buffer_as_it_was() {
        let mut buffer = framed("before");
        let before = buffer.clone();
        let large = "x".repeat(FRAME_BYTES_MAX + 1);
        assert!(matches!(encode(&large, &mut buffer), Err(FrameError::TooLarge { .. })));
        assert_eq!(buffer, before);
    }

    #[test]
    fn bytes_behind_a_value_are_an_error() {
        assert_eq!(decode::<u8>(&[1, 2]), Err(FrameError::Decode));
    }
}
