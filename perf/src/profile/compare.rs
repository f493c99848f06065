//! Two folders of results side by side. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// The values of a result, by metric: those of run 0, or of the last run that has one.
pub(crate) fn values(json_lines: &str) -> BTreeMap<String, (f64, String)> {
    let mut values = BTreeMap::new();
    for line in json_lines.lines() {
        let Ok(row) = serde_json::from_str::<Value>(line) else { continue };
        let (Some(metric), Some(value)) = (row["metric"].as_str(), row["value"].as_f64()) else { continue };
        values.insert(metric.to_owned(), (value, row["unit"].as_str().unwrap_or_default().to_owned()));
    }
    values
}

/// A line for each metric of either: before, after, and how many times.
pub(crate) fn table(before: &str, after: &str) -> Vec<String> {
    let (before, after) = (values(before), values(after));
    let metrics: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown =
        |value: Option<&(f64, String)>| value.map_or_else(|| "–".to_owned(), |(value, _)| format!("{value:.3}"));
    let line = |metric: &String| {
        let (old, new) = (before.get(metric), after.get(metric));
        let unit = old.or(new).map(|(_, unit)| unit.as_str()).unwrap_or_default();
        let change = match (old, new) {
            (Some((old, _)), Some((new, _))) if *old != 0.0 => format!("{:+.1} %", (new / old - 1.0) * 100.0),
            _ => String::new(),
        };
        format!("{metric:<44} {:>14} {:>14} {change:>9} {unit}", shown(old), shown(new))
    };
    metrics.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_one_side_has_is_shown_without_a_change() {
        let before = "{\"metric\":\"enters\",\"value\":0.2,\"unit\":\"calls\"}\n{\"metric\":\"gone\",\"value\":1,\"unit\":\"x\"}\n";
        let after = "no json\n{\"metric\":\"enters\",\"value\":0.3,\"unit\":\"calls\"}\n";
        let table = table(before, after);
        assert_eq!(table.len(), 2);
        assert!(
            table[0].contains("0.200") && table[0].contains("0.300") && table[0].contains("+50.0 %"),
            "{}",
            table[0]
        );
        assert!(table[1].starts_with("gone") && table[1].contains('–'));
    }
}
