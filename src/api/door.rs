//! Who is served next: first come, first served, and no more at a time than a pod serves well.
//!
//! Beyond some concurrency more of it adds nothing but waiting, wherever a request waits. Here it has
//! done nothing yet: a client that is not let in within the door's patience is told to come back, and
//! that is true. A request that takes long once it is in, because units or a leader are waited for,
//! gives its place to the next after a moment: it costs memory, not time, and must not keep those out that
//! could be served.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::time::timeout;

/// A request that takes longer waits for something: several times what one takes at a busy pod.
const PLACE_KEPT: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct Door {
    /// Room for all that wait for a place or an outcome.
    room: Semaphore,
    places: Semaphore,
    patience: Duration,
}

impl Door {
    #[must_use]
    pub const fn new(room: usize, places: usize, patience: Duration) -> Self {
        Self { room: Semaphore::const_new(room), places: Semaphore::const_new(places), patience }
    }

    /// What `work` comes to, begun when there is a place for it; `None`, and it never began, if there is
    /// no room, or no place in time.
    pub async fn serve<F: Future>(&self, work: impl FnOnce() -> F) -> Option<F::Output> {
        let _room = self.room.try_acquire().ok()?;
        let place = match self.places.try_acquire() {
            Ok(place) => place,
            Err(TryAcquireError::NoPermits) => {
                timeout(self.patience, self.places.acquire()).await.ok()?.ok()?
            }
            Err(TryAcquireError::Closed) => return None,
        };
        let mut work = pin!(work());
        match timeout(PLACE_KEPT, &mut work).await {
            Ok(output) => Some(output),
            Err(_) => {
                drop(place);
                Some(work.await)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::{pending, ready};
    use tokio::time::Instant;

    const PATIENCE: Duration = Duration::from_millis(600);

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_room_is_turned_away_at_once() {
        let door = Door::new(1, 1, PATIENCE);
        let mut inside = pin!(door.serve(pending::<()>));
        assert!(timeout(Duration::from_millis(1), &mut inside).await.is_err());
        let at = Instant::now();
        assert_eq!(door.serve(|| ready(1)).await, None);
        assert_eq!(at.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_gives_its_place_to_the_next() {
        let door = Door::new(8, 1, PATIENCE);
        let mut inside = pin!(door.serve(pending::<()>));
        assert!(timeout(Duration::from_millis(1), &mut inside).await.is_err());
        let mut next = pin!(door.serve(|| ready(1)));
        assert!(timeout(Duration::from_millis(100), &mut next).await.is_err());
        // The first is looked at again once its place is due.
        let (_, got) = tokio::join!(timeout(PLACE_KEPT, &mut inside), next);
        assert_eq!(got, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gets_no_place_in_time_has_begun_nothing() {
        let door = Door::new(8, 0, PATIENCE);
        let begun = Cell::new(false);
        let at = Instant::now();
        let got = door.serve(|| {
            begun.set(true);
            ready(1)
        });
        assert_eq!(got.await, None);
        assert_eq!((at.elapsed(), begun.get()), (PATIENCE, false));
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_order_of_arrival() {
        let door = Door::new(8, 1, PATIENCE);
        let served = std::cell::RefCell::new(Vec::new());
        let take = |n: u32| {
            let served = &served;
            door.serve(move || async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                served.borrow_mut().push(n);
            })
        };
        tokio::join!(take(0), take(1), take(2), take(3));
        assert_eq!(*served.borrow(), [0, 1, 2, 3]);
    }
}
