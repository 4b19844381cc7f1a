//! Last reads: a scene that its clients have left is read back when it is calm, from every pod, and some of
//! what was answered in it is asked again.

use super::clients::{Caller, Load, SceneRef};
use super::judge::Finished;
use super::scene::Scene;
use crate::histories::workload::Planned;
use std::rc::Rc;
use std::time::Duration;

/// Looks whether it is calm enough.
const CALM_POLL: Duration = Duration::from_millis(50);
/// Of the orders this share is read a second time, from another pod; users and items all are.
const ORDERS_AGAIN: usize = 4;

impl Load {
    /// Reads one scene after the other, until the clients have gone and none is left.
    pub async fn reader(self: Rc<Self>, number: usize) {
        let mut caller = Caller::direct(&self.pods, number);
        loop {
            let next = self.resting.borrow_mut().pop_front();
            match next {
                Some(scene) => {
                    if self.read_back(&mut caller, &scene).await {
                        self.hand_over(&scene);
                    }
                    self.open_scenes.set(self.open_scenes.get() - 1);
                }
                None if self.stops.get() && self.busy_clients.get() == 0 => return,
                None => tokio::time::sleep(CALM_POLL).await,
            }
            if self.gives_up.get() {
                return;
            }
        }
    }

    /// Whether everything was read.
    async fn read_back(&self, caller: &mut Caller, scene: &SceneRef) -> bool {
        let repeats = scene.borrow_mut().repeats();
        for planned in repeats {
            caller.turn();
            if !self.ask_calmly(caller, scene, planned).await {
                return false;
            }
        }
        for pass in 0..2 {
            let mut orders = 0;
            let reads = scene.borrow_mut().last_reads();
            for planned in reads {
                orders += usize::from(planned.target.order.is_some());
                if pass > 0 && planned.target.order.is_some() && orders % ORDERS_AGAIN != 0 {
                    continue;
                }
                // The pods take turns, so that the second time is another's.
                caller.turn();
                if !self.ask_calmly(caller, scene, planned).await {
                    return false;
                }
            }
            caller.turn();
        }
        true
    }

    /// Asks, and asks again if it was not calm until the answer; whether there is one.
    async fn ask_calmly(&self, caller: &mut Caller, scene: &SceneRef, planned: Planned) -> bool {
        let is_read = planned.op.is_read();
        loop {
            while !self.weather.is_calm(self.now_us(), self.now_us()) {
                if self.gives_up.get() {
                    return false;
                }
                tokio::time::sleep(CALM_POLL).await;
            }
            let again = Planned { op: planned.op.clone(), target: planned.target, key: planned.key };
            let sent = scene.borrow_mut().begin(0, again, self.now_us(), is_read);
            let record = sent.record;
            self.ask(caller, scene, sent, false).await;
            let scene = scene.borrow();
            match scene.shop.history[record].ret_us {
                None => return false,
                Some(_) if scene.shop.history[record].calm || !is_read => return true,
                Some(_) => {}
            }
        }
    }

    fn hand_over(&self, scene: &SceneRef) {
        let known = scene.borrow().known();
        self.known.borrow_mut().extend(known);
        let mut scene = scene.borrow_mut();
        if scene.plan.batch > 0 {
            self.batch_taken.set(false);
        }
        let Scene { no, plan, ref mut shop, .. } = *scene;
        let mut shop = std::mem::take(shop);
        shop.disk_lost |= self.weather.disk_lost.get();
        let finished = Finished { no, plan, shop, early: false, storms: self.weather.storms() };
        self.handed_over.set(self.handed_over.get() + 1);
        // The judge ends only with the run.
        let _ = self.judge.send(finished);
    }
}
