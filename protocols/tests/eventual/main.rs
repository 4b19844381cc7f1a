//! Replicated sets in a small world of their own: scripted (`scripts/`) and random.
//!
//! Both run on [`world::World`], which keeps books of what reached disks and what was acknowledged, and
//! checks them at every event. That the checks bite was seen by breaking the code on purpose; each of these
//! was noticed:
//!
//! | broken on purpose | noticed by |
//! |---|---|
//! | acknowledgement under a newer ballot counted | script `older_ballot`; books: a newer owner lacks it |
//! | own newer promise ignored | books: a newer owner lacks it |
//! | union skipped at takeover | scripts `takeover`; books: owns without what was acknowledged |
//! | union of what was there before the promise | script `takeover` |
//! | union kept from an older ballot | books: owns without what was acknowledged |
//! | answer to an older question taken | script `old_answer`; books: owns without what was acknowledged |
//! | own vote counted before the fsync | books: not on its own disk |
//! | acknowledged before the fsync | books: no majority has it on disk |
//! | a minority is enough | books: no majority has it on disk |
//! | what a comparison brought is not logged | books: no majority has it on disk |
//! | gap accepted | script `lost`; books: no majority has it on disk |
//! | entries of a run passed over | script `crash`; books: no majority has it on disk |
//! | numbers reused after a crash | script `crash`; books: no majority has it on disk |
//! | sent early before the new start is on disk | books: no majority has it on disk |
//! | no journal in a checkpoint | assertion in `stream` |
//! | no cursors in a checkpoint | script `crash` |
//! | no digests in a checkpoint | world: digests are not those of the sets |
//! | journal trimmed at the first acknowledgement | script `crash` |
//! | nothing sent again, or no rewinding | script `lost`; random: journal kept |
//! | no comparison | scripts; world: woken for nothing |
//! | deposed owner keeps its edits waiting | script `older_ballot` |
//! | waits for a majority out of reach | script `durable` |

mod golden;
mod random;
mod text;
mod union;
mod world;
