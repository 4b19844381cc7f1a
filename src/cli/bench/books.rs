//! What the stores hold when all is over, against what clients were told.

use super::prepare::{LOADERS_MAX, Shop, UNITS};
use super::settings::Settings;
use super::tally::Tally;
use std::time::{Duration, Instant};

/// Charges whose answer was lost may still be on their way when the clock stops; books that do not agree
/// after this never will.
const SETTLE_WITHIN: Duration = Duration::from_secs(15);
/// The same where every outcome is known: a refused checkout gives back its units before it is answered.
const SETTLE_KNOWN_WITHIN: Duration = Duration::from_secs(1);
const SETTLE_POLL: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug)]
pub struct Books {
    /// Paid orders whose client got no answer that said so.
    pub untold: u64,
    pub units_told: i128,
    pub units_gone: i128,
    pub credit_told: i128,
    pub credit_gone: i128,
}

impl Books {
    #[must_use]
    pub const fn agree(&self) -> bool {
        self.units_told == self.units_gone && self.credit_told == self.credit_gone
    }
}

/// Reads stock and credit until they agree with what was told, or never will.
///
/// # Errors
/// Where they cannot be read.
pub async fn read_back(shop: &Shop, tally: &Tally, settings: &Settings) -> anyhow::Result<Books> {
    let (targets, clients) = (&settings.targets, settings.clients.min(LOADERS_MAX));
    let started = Instant::now();
    let patience = if tally.open.is_empty() { SETTLE_KNOWN_WITHIN } else { SETTLE_WITHIN };
    loop {
        let untold = shop.paid(&tally.open, targets, clients).await?;
        let fall = shop.fall(targets, clients).await?;
        // Every unit costs 1.
        let sold = i128::from(tally.committed + tally.committed_outside + untold) * i128::from(UNITS);
        let books = Books {
            untold,
            units_told: sold,
            units_gone: fall.units,
            credit_told: sold,
            credit_gone: fall.credit,
        };
        if books.agree() || started.elapsed() > patience {
            return Ok(books);
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
}
