//! The supervisor of the simulated world: it runs the programs that a few users' mail is delivered to, which take their time,
//! fail, or hang until they are ended.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringpost_io::Runtime;
use ringpost_shard::{Forwarding, HandOver, Handed, Handover, UserRecord};

use crate::clients;
use crate::limits::PROGRAM;
use crate::promises::{Ledger, number_in};

/// How programs do: one of so many, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    pub(crate) fails_one_in: u64,
    pub(crate) hangs_one_in: u64,
}

/// Runs them.
pub(crate) struct Programs<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) health: Rc<Cell<Health>>,
    pub(crate) ledger: Rc<RefCell<Ledger>>,
}

impl<R: Runtime> HandOver for Programs<R> {
    type Text = Vec<u8>;

    fn text(&self) -> std::io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    async fn deliver(&self, handover: Handover, text: Vec<u8>) -> Handed {
        let health = self.health.get();
        let one_in = |chance: u64| chance > 0 && self.runtime.random_u64().is_multiple_of(chance);
        if one_in(health.hangs_one_in) {
            self.runtime.sleep(PROGRAM).await;
            return Handed::temporary((4, 3, 0), "the program was ended after its time");
        }
        self.runtime.sleep(Duration::from_millis(1 + self.runtime.random_u64() % 200)).await;
        if one_in(health.fails_one_in) {
            return Handed::temporary((4, 3, 0), "the program said EX_TEMPFAIL");
        }
        let lossy = String::from_utf8_lossy(&text);
        let mut ledger = self.ledger.borrow_mut();
        match number_in(&lossy) {
            Some(number) => {
                if !text.ends_with(&clients::with_plain_line_ends(&clients::text(number))) {
                    ledger.changed(number);
                }
                // Its end is known at once to whoever waits for it.
                if let Some(place) =
                    ledger.arrived(number, &handover.original, self.runtime.now(), self.runtime.unix_ms())
                {
                    ledger.heard(number, &handover.original, place);
                }
            }
            None => ledger.invented(format!("a message without number for {}", handover.original)),
        }
        Handed::Delivered { text: "delivered to the program".into() }
    }

    async fn forward(&self, _user: UserRecord) -> Forwarding {
        Forwarding::NotThere
    }

    async fn list(&self, _user: UserRecord, _path: PathBuf) -> Forwarding {
        Forwarding::NotThere
    }
}
