//! Bars as SVG, one file a scenario: median and range of each figure of the table. Pure but for
//! writing the files. No axis: each bar has its value beside it, and the longest is the largest.

use std::{fmt::Write, fs, io, path::Path};

use super::{results::Results, scenario::Scenario};
use crate::{plot::escaped, rows::digits, spread::Spread};

const WIDTH: f64 = 760.0;
/// Where bars begin, and the longest of them.
const BAR_X: f64 = 150.0;
const BAR_WIDTH_MAX: f64 = 400.0;
const LINE_HEIGHT: f64 = 22.0;
const BAR_HEIGHT: f64 = 14.0;
/// Of a figure's heading, and of the space below its bars.
const HEADING_HEIGHT: f64 = 30.0;
const GAP_HEIGHT: f64 = 12.0;
const MARGIN: f64 = 16.0;
/// The gateway's bars, and everybody else's.
const OWN_COLOUR: &str = "#2b6cb0";
const OTHER_COLOUR: &str = "#a0aec0";

/// Writes `SCENARIO.svg` to `folder` for each scenario, and makes the folder.
pub(super) fn write_all(results: &Results, scenarios: &[Scenario], folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for &scenario in scenarios {
        fs::write(folder.join(format!("{}.svg", scenario.name())), of_scenario(results, scenario))?;
    }
    Ok(())
}

fn of_scenario(results: &Results, scenario: Scenario) -> String {
    let proxies = results.proxies(scenario);
    let mut body = String::new();
    let mut y = MARGIN + LINE_HEIGHT;
    text(&mut body, MARGIN, y, "bold 15px", "start", scenario.title());
    for metric in scenario.columns() {
        let bars: Vec<(&str, Option<Spread>)> = proxies
            .iter()
            .map(|proxy| (*proxy, results.spread(scenario, proxy, metric).map(|(spread, _)| spread)))
            .collect();
        let most = bars.iter().filter_map(|(_, spread)| spread.map(|spread| spread.most)).fold(0.0, f64::max);
        let unit = proxies.iter().find_map(|proxy| results.spread(scenario, proxy, metric)).map(|(_, unit)| unit);
        // Nobody has it.
        let Some(unit) = unit else { continue };
        y += HEADING_HEIGHT;
        text(&mut body, MARGIN, y, "13px", "start", &format!("{metric}, {unit}"));
        for (proxy, spread) in bars {
            y += LINE_HEIGHT;
            text(&mut body, BAR_X - 8.0, y, "12px", "end", proxy);
            if let Some(spread) = spread {
                bar(&mut body, y, proxy, spread, BAR_WIDTH_MAX / most.max(f64::MIN_POSITIVE));
            } else {
                let why = results.disqualified(scenario, proxy).map_or("-", |(kind, _)| kind);
                text(&mut body, BAR_X, y, "italic 12px", "start", why);
            }
        }
        y += GAP_HEIGHT;
    }
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// The median as a bar, the range as a line through its end, both as text behind them.
fn bar(body: &mut String, y: f64, proxy: &str, spread: Spread, scale: f64) {
    let colour = if proxy.starts_with("gateway") { OWN_COLOUR } else { OTHER_COLOUR };
    let (top, middle) = (y - BAR_HEIGHT + 3.0, y - BAR_HEIGHT / 2.0 + 3.0);
    let _ = writeln!(
        body,
        "<rect x=\"{BAR_X}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>",
        spread.median * scale
    );
    let mut value = digits(spread.median);
    if spread.least < spread.most {
        let _ = writeln!(
            body,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"black\"/>",
            BAR_X + spread.least * scale,
            BAR_X + spread.most * scale
        );
        value = format!("{value} ({} to {})", digits(spread.least), digits(spread.most));
    }
    text(body, BAR_X + spread.most * scale + 8.0, y, "12px", "start", &value);
}

fn text(body: &mut String, x: f64, y: f64, font: &str, anchor: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" style=\"font: {font} sans-serif\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::{Figure, Outcome};

    #[test]
    fn the_longest_bar_is_the_largest_value_and_a_failure_has_none() {
        let mut results = Results::default();
        for (proxy, value) in [("relay", 10.0), ("gateway-all", 20.0)] {
            let figures = vec![Figure::new("system_calls_per_request", value, "calls")];
            results.add(Scenario::SystemCalls, proxy, Outcome::Measured(figures));
        }
        results.add(Scenario::SystemCalls, "nginx", Outcome::Failed("failed_reset: 1 < 2".to_owned()));
        let svg = of_scenario(&results, Scenario::SystemCalls);
        let widths: Vec<&str> = svg.lines().filter(|line| line.contains(" height=\"14\"")).collect();
        assert_eq!(widths.len(), 2, "{svg}");
        assert!(widths[0].contains("width=\"200.0\"") && widths[1].contains("width=\"400.0\""), "{svg}");
        assert!(widths[1].contains(OWN_COLOUR) && svg.contains(">failed</text>"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
