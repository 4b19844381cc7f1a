//! How the rest of the process speaks to the event loop: one bounded inbox, and the readiness that
//! the loop publishes.
//!
//! Nobody waits to get into the inbox. A client that finds it full is shed, having done nothing; a
//! link that finds it full is reset, and its peer repeats what was lost.

use super::clock::{Clock, span};
use crate::fabric;
use crate::modules::request::{Outcome, Request};
use crate::node::{ClientId, Message, Status};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use kassa_protocols::ids::PodId;
use kassa_protocols::time::Time;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// What the event loop is told.
#[derive(Debug)]
pub enum Event {
    Ask {
        client: ClientId,
        request: Request,
        deadline: Time,
        reply: oneshot::Sender<Outcome>,
    },
    /// An operator has the disk of a pod replaced by that of the empty pod that waits.
    Replace {
        pod: PodId,
        client: ClientId,
        deadline: Time,
        reply: oneshot::Sender<Outcome>,
    },
    Fabric(fabric::Event<Message>),
    Status {
        reply: oneshot::Sender<Status>,
    },
    /// Ends the loop after the round in hand.
    Stop,
}

/// Asks the pod from any task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: Sender<Event>,
    /// Clients that went away: apart from the inbox, since none of them may be missed when it is full. Never
    /// more than have asked and are not answered.
    gone: Arc<Mutex<Vec<ClientId>>>,
    clients_max: usize,
    next_client: Arc<AtomicU64>,
    clock: Clock,
    readiness: Arc<Readiness>,
}

impl Handle {
    /// A handle and the inbox that it fills, of `capacity` events; clients may fill half of it, so
    /// that a flood of them never costs a link. Closed until [`Readiness::open`] is called: whoever
    /// reads the inbox (the event loop, or a test that plays it) does that when it starts.
    ///
    /// # Panics
    /// If `capacity` is zero.
    #[must_use]
    pub fn channel(capacity: usize, clock: Clock) -> (Self, Receiver<Event>) {
        assert!(capacity > 0, "an inbox of no capacity would need its reader to wait for each writer");
        let (inbox, events) = bounded(capacity);
        let handle = Self {
            inbox,
            gone: Arc::default(),
            clients_max: capacity.div_ceil(2),
            next_client: Arc::new(AtomicU64::new(1)),
            clock,
            readiness: Arc::new(Readiness::default()),
        };
        (handle, events)
    }

    /// Hands `request` over at once, before the returned future is polled: so it is finished or never
    /// begun. Dropping the future ends the wait, not what was begun. It resolves by `wait` from now
    /// on, give or take a round of the loop.
    pub fn ask(&self, request: Request, wait: Duration) -> Asked {
        if !self.readiness.is_open() || self.readiness.is_aside() {
            return Asked(State::Ended(Some(Outcome::Unavailable)));
        }
        if self.inbox.len() >= self.clients_max {
            return Asked(State::Ended(Some(Outcome::Overloaded)));
        }
        let client = ClientId(self.next_client.fetch_add(1, Ordering::Relaxed));
        let deadline = self.clock.now() + span(wait);
        let (reply, answer) = oneshot::channel();
        match self.inbox.try_send(Event::Ask { client, request, deadline, reply }) {
            Ok(()) => Asked(State::Waiting { client, answer, gone: self.gone.clone() }),
            Err(TrySendError::Full(_)) => Asked(State::Ended(Some(Outcome::Overloaded))),
            Err(TrySendError::Disconnected(_)) => Asked(State::Ended(Some(Outcome::Unavailable))),
        }
    }

    /// Has the disk of a pod replaced; see [`Self::ask`].
    pub fn replace(&self, pod: PodId, wait: Duration) -> Asked {
        if !self.readiness.is_open() {
            return Asked(State::Ended(Some(Outcome::Unavailable)));
        }
        let client = ClientId(self.next_client.fetch_add(1, Ordering::Relaxed));
        let deadline = self.clock.now() + span(wait);
        let (reply, answer) = oneshot::channel();
        match self.inbox.try_send(Event::Replace { pod, client, deadline, reply }) {
            Ok(()) => Asked(State::Waiting { client, answer, gone: self.gone.clone() }),
            Err(TrySendError::Full(_)) => Asked(State::Ended(Some(Outcome::Overloaded))),
            Err(TrySendError::Disconnected(_)) => Asked(State::Ended(Some(Outcome::Unavailable))),
        }
    }

    /// Whether this pod can answer; else why not, for people.
    ///
    /// # Errors
    /// The reasons, at least one.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let reasons = self.readiness.reasons();
        if reasons.is_empty() && self.readiness.is_open() { Ok(()) } else { Err(reasons) }
    }

    /// What the pod knows of itself; `None` while it has not started, has stopped, or is too busy.
    pub async fn status(&self) -> Option<Status> {
        if !self.readiness.is_open() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        self.inbox.try_send(Event::Status { reply }).ok()?;
        answer.await.ok()
    }

    /// Puts an event of the fabric into the inbox, without waiting.
    ///
    /// # Errors
    /// Gives the event back if there is no room. Once the loop has ended it takes all, for nobody.
    pub fn deliver(&self, event: fabric::Event<Message>) -> Result<(), fabric::Event<Message>> {
        match self.inbox.try_send(Event::Fabric(event)) {
            Err(TrySendError::Full(Event::Fabric(event))) => Err(event),
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// The clients that went away since the last call.
    #[must_use]
    pub fn take_gone(&self) -> Vec<ClientId> {
        std::mem::take(&mut *self.gone.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the loop to end; waits for room in the inbox, so not for use on a task.
    pub fn stop(&self) {
        // An error means that there is no loop any more: what was asked for.
        let _ = self.inbox.send(Event::Stop);
    }

    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }
}

/// The answer to come. See [`Handle::ask`].
#[derive(Debug)]
pub struct Asked(State);

#[derive(Debug)]
enum State {
    Waiting { client: ClientId, answer: oneshot::Receiver<Outcome>, gone: Arc<Mutex<Vec<ClientId>>> },
    Ended(Option<Outcome>),
}

impl Future for Asked {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = match &mut self.0 {
            State::Waiting { answer, .. } => match Pin::new(answer).poll(context) {
                // A loop that ended with the request in hand may have sent it on.
                Poll::Ready(outcome) => outcome.unwrap_or(Outcome::Unknown),
                Poll::Pending => return Poll::Pending,
            },
            State::Ended(outcome) => outcome.take().expect("a future is not polled after its end"),
        };
        self.0 = State::Ended(None);
        Poll::Ready(outcome)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let State::Waiting { client, gone, .. } = &self.0 {
            gone.lock().unwrap_or_else(PoisonError::into_inner).push(*client);
        }
    }
}

/// What the pod says of itself to health checks: readable at any time, however busy the loop is.
#[derive(Debug)]
pub struct Readiness {
    open: AtomicBool,
    aside: AtomicBool,
    reasons: Mutex<Vec<String>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            open: AtomicBool::new(false),
            aside: AtomicBool::new(false),
            reasons: Mutex::new(vec!["the pod is starting".to_owned()]),
        }
    }
}

impl Readiness {
    /// From now on somebody reads the inbox.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// From now on nobody does: clients are told that nothing was done.
    pub fn close(&self, reason: &str) {
        self.open.store(false, Ordering::Release);
        self.publish(vec![reason.to_owned()]);
    }

    /// Why the pod cannot answer; nothing if it can.
    pub fn publish(&self, reasons: Vec<String>) {
        *self.reasons.lock().unwrap_or_else(PoisonError::into_inner) = reasons;
    }

    /// Whether clients are put off to other pods, which are faster by far.
    pub fn stand_aside(&self, aside: bool) {
        self.aside.store(aside, Ordering::Release);
    }

    fn is_aside(&self) -> bool {
        self.aside.load(Ordering::Acquire)
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn reasons(&self) -> Vec<String> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::request::{Answer, Op};
    use kassa_protocols::ids::OpId;

    fn request() -> Request {
        Request { op: Op::CreateUser, key: OpId(1) }
    }

    const WAIT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_closed_pod_answers_at_once() {
        let (handle, events) = Handle::channel(8, Clock::start());
        assert_eq!(handle.ask(request(), WAIT).await, Outcome::Unavailable);
        assert!(handle.ready().is_err());
        assert!(handle.status().await.is_none());
        assert!(events.is_empty());
    }

    #[tokio::test]
    async fn an_answer_reaches_its_asker() {
        let (handle, events) = Handle::channel(8, Clock::start());
        handle.readiness().open();
        handle.readiness().publish(Vec::new());
        let asked = handle.ask(request(), WAIT);
        let Ok(Event::Ask { reply, deadline, .. }) = events.try_recv() else { panic!("handed over eagerly") };
        assert!(deadline <= handle.clock().now() + span(WAIT));
        let outcome = Outcome::Done(Answer::PaymentStatus { paid: true });
        reply.send(outcome.clone()).unwrap();
        assert_eq!(asked.await, outcome);
        assert!(events.is_empty(), "an answered client is not gone");
        assert_eq!(handle.ready(), Ok(()));
    }

    #[tokio::test]
    async fn a_dropped_wait_is_told() {
        // However full the inbox is.
        let (handle, events) = Handle::channel(2, Clock::start());
        handle.readiness().open();
        let asked = handle.ask(request(), WAIT);
        assert_eq!(handle.ask(request(), WAIT).await, Outcome::Overloaded);
        assert!(handle.take_gone().is_empty());
        drop(asked);
        let Ok(Event::Ask { client, .. }) = events.try_recv() else { panic!("asked first") };
        assert_eq!(handle.take_gone(), [client]);
        assert!(handle.take_gone().is_empty());
    }

    #[tokio::test]
    async fn clients_fill_half_of_the_inbox_and_are_shed() {
        let (handle, events) = Handle::channel(4, Clock::start());
        handle.readiness().open();
        let waiting = [handle.ask(request(), WAIT), handle.ask(request(), WAIT)];
        assert_eq!(handle.ask(request(), WAIT).await, Outcome::Overloaded);
        assert_eq!(events.len(), 2);
        events.try_iter().for_each(drop);
        for asked in waiting {
            assert_eq!(asked.await, Outcome::Unknown);
        }
    }
}
