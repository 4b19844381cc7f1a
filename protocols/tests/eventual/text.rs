//! What scripts show of messages.

use bytes::Bytes;
use kassa_protocols::eventual::{Item, Message};

/// A number without the start that it counts from.
fn short(seq: u64) -> String {
    let (start, n) = (seq >> 40, seq & ((1 << 40) - 1));
    format!("{start}.{n}")
}

pub fn shown(message: &Message) -> String {
    let ids = |items: &[Item]| {
        let ids: Vec<String> = items.iter().map(|item| item.id.0.to_string()).collect();
        ids.join(",")
    };
    let contents = |sets: &[(Bytes, Vec<Item>)]| {
        let set = |(entity, items): &(Bytes, Vec<Item>)| {
            format!("{}={{{}}}", String::from_utf8_lossy(entity), ids(items))
        };
        sets.iter().map(set).collect::<Vec<_>>().join(" ")
    };
    let name = |entity: &Bytes| String::from_utf8_lossy(entity).into_owned();
    match message {
        Message::Update { seq, prev, sets } => {
            format!("Update {} after {}: {}", short(*seq), short(*prev), contents(sets))
        }
        Message::Ack { seq, under } => format!("Ack {} under {under}", short(*seq)),
        Message::Behind { seq } => format!("Behind {}", short(*seq)),
        Message::Stored { seq, .. } => format!("Stored {}", short(*seq)),
        Message::Compare { ballot, buckets, .. } => {
            let under = ballot.map_or_else(String::new, |ballot| format!(" under {ballot}"));
            format!("Compare {} buckets{under}", buckets.len())
        }
        Message::Compared { seq, owning, entities, more, .. } => {
            let names: Vec<String> = entities.iter().map(|(entity, _)| name(entity)).collect();
            let owning = owning.map_or_else(String::new, |ballot| format!(", owning under {ballot}"));
            let (seq, names, more) = (short(*seq), names.join(" "), more.len());
            format!("Compared at {seq}{owning}: [{names}] and {more} buckets more")
        }
        Message::NotUnder { promised, .. } => format!("NotUnder, promised {promised}"),
        Message::Want { entities, .. } => {
            let names: Vec<String> = entities.iter().map(name).collect();
            format!("Want [{}]", names.join(" "))
        }
        Message::Contents { sets, .. } => format!("Contents {}", contents(sets)),
    }
}
