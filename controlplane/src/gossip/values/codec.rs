//! Values as texts under gossip keys, and back. Compact JSON: a list is rows of cells without
//! field names, cut into several texts. The same values always make the same texts, so that what
//! did not change costs no gossip.
//!
//! Reading trusts nothing: the sender proved that it has the key, not that it is well. What cannot
//! be read leaves its default and is counted; what is unknown is left alone, cells behind the last
//! known one included, so that a later version may add some.

mod rows;
mod text;

use super::shapes::{About, ConfigurationMark, LimitUse, Load, NodeValues, ProviderTraffic, Rest, ToldRow, TrafficRow};
use rows::{Row, read_rows, write_rows};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use text::{Cells, is_clean};

/// Largest text that is written, in bytes: gossip carries a value whole, and one that finds no
/// room in a message blocks everything behind it.
pub const TEXT_BYTES_MAX: usize = 4 * 1024;
/// Texts that one node writes.
pub const KEYS_MAX: usize = 36;

/// Largest text that is read. Another version may write more than this one.
const READ_BYTES_MAX: usize = 2 * TEXT_BYTES_MAX;
/// Texts of one node that are looked at; the rest is left alone.
const READ_KEYS_MAX: usize = 4 * KEYS_MAX;
/// Cores whose tick delay is written and read: so many numbers of 20 digits fit one text.
const CORES_MAX: usize = 180;
/// Gossip keys that a node may accept.
const GOSSIP_KEYS_MAX: usize = 16;

const _: () = {
    let lists = Rest::TEXTS_MAX + ProviderTraffic::TEXTS_MAX + TrafficRow::TEXTS_MAX;
    let lists = lists + LimitUse::TEXTS_MAX + ToldRow::TEXTS_MAX;
    assert!(lists + 3 <= KEYS_MAX, "three texts are not lists");
};

/// Everything that others are to know, by gossip key. Where there are more rows than texts may
/// hold, the busiest are written.
pub fn encode(values: &NodeValues) -> Vec<(String, String)> {
    let NodeValues { about, load, configuration, rests, providers, traffic, limits, told, unreadable: _ } = values;
    let mut texts = Vec::with_capacity(KEYS_MAX);
    let singles = [("about", object(about)), ("configuration", object(configuration)), ("load", write_load(load))];
    for (key, text) in singles {
        if text.len() <= TEXT_BYTES_MAX {
            texts.push((key.to_owned(), text));
        }
    }
    write_rows(rests, &mut texts);
    write_rows(providers, &mut texts);
    write_rows(traffic, &mut texts);
    write_rows(limits, &mut texts);
    write_rows(told, &mut texts);
    texts
}

/// What a node published, from all of its texts, in any order.
pub fn decode<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> NodeValues {
    let mut values = NodeValues::default();
    for (key, text) in texts.take(READ_KEYS_MAX) {
        let unreadable = &mut values.unreadable;
        let (list, number) = key.split_once('/').unwrap_or((key, ""));
        let is_read = match (list, number) {
            ("about", "") => read_object(text, &mut values.about, about_is_clean),
            ("configuration", "") => read_object(text, &mut values.configuration, configuration_is_clean),
            ("load", "") => read_load(text, &mut values.load),
            (Rest::LIST, _) => read_rows(number, text, &mut values.rests, unreadable),
            (ProviderTraffic::LIST, _) => read_rows(number, text, &mut values.providers, unreadable),
            (TrafficRow::LIST, _) => read_rows(number, text, &mut values.traffic, unreadable),
            (LimitUse::LIST, _) => read_rows(number, text, &mut values.limits, unreadable),
            (ToldRow::LIST, _) => read_rows(number, text, &mut values.told, unreadable),
            _ => true,
        };
        *unreadable = unreadable.saturating_add(u32::from(!is_read));
    }
    rows::tidy(&mut values.rests);
    rows::tidy(&mut values.providers);
    rows::tidy(&mut values.traffic);
    rows::tidy(&mut values.limits);
    rows::tidy(&mut values.told);
    values
}

fn object(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain fields always have a text")
}

/// Replaces `value` if the text is one of its kind.
fn read_object<T: DeserializeOwned>(text: &str, value: &mut T, is_fit: fn(&T) -> bool) -> bool {
    if text.len() > READ_BYTES_MAX {
        return false;
    }
    match serde_json::from_str(text) {
        Ok(read) if is_fit(&read) => {
            *value = read;
            true
        }
        Ok(_) | Err(_) => false,
    }
}

fn about_is_clean(about: &About) -> bool {
    let About { version, protocol: _, region, state, client_address, started_ms: _, gossip_keys } = about;
    [version, region, state, client_address].into_iter().chain(gossip_keys).all(|text| is_clean(text))
        && gossip_keys.len() <= GOSSIP_KEYS_MAX
}

fn configuration_is_clean(mark: &ConfigurationMark) -> bool {
    is_clean(&mark.author) && is_clean(&mark.hash)
}

/// One row: this text changes every second.
fn write_load(load: &Load) -> String {
    let Load {
        cpu_permille,
        memory_permille,
        network_bytes_per_second,
        descriptors_permille,
        streams,
        requests_in_flight,
        tick_delay_us,
        is_overloaded,
    } = load;
    let delays = tick_delay_us.get(..CORES_MAX).unwrap_or(tick_delay_us);
    json!([
        cpu_permille,
        memory_permille,
        network_bytes_per_second,
        descriptors_permille,
        streams,
        requests_in_flight,
        u8::from(*is_overloaded),
        delays
    ])
    .to_string()
}

fn read_load(text: &str, load: &mut Load) -> bool {
    let Some(cells) = text::parsed(text, READ_BYTES_MAX) else { return false };
    let mut cells = Cells::of(&cells);
    let read = Load {
        cpu_permille: cells.permille(),
        memory_permille: cells.permille(),
        network_bytes_per_second: cells.number(),
        descriptors_permille: cells.permille(),
        streams: cells.number(),
        requests_in_flight: cells.number(),
        is_overloaded: cells.number() != 0,
        tick_delay_us: cells.numbers(CORES_MAX),
    };
    let is_read = cells.are_read();
    if is_read {
        *load = read;
    }
    is_read
}

#[cfg(test)]
mod tests;
