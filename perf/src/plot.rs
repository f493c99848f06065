//! Line plots as SVG: what grows with what, the sizes on a logarithmic axis. Pure.

use std::fmt::Write;

/// One line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// What it shows, with the unit.
    pub(crate) name: String,
    /// Size (1 or more) and value, in the order of sizes.
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Around the lines: room for numbers and labels.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 60.0;
/// Steps of the upright axis.
const STEPS: u32 = 5;
/// Told apart by people who see colours differently, too (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// A whole picture: values from nothing up, sizes by their logarithm.
pub(crate) fn lines(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let largest = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(1.0, f64::max);
    let (sizes, values) = (largest(|point| point.0).max(2.0), round_up(largest(|point| point.1)));
    let x = |size: f64| LEFT + size.max(1.0).ln() / sizes.ln() * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / values * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    text(&mut svg, WIDTH / 2.0, 20.0, "middle", title);
    text(&mut svg, WIDTH / 2.0, HEIGHT - 12.0, "middle", x_label);
    text(&mut svg, 8.0, 40.0, "start", y_label);
    for step in 0..=STEPS {
        let value = values * f64::from(step) / f64::from(STEPS);
        line(&mut svg, (LEFT, y(value)), (WIDTH - RIGHT, y(value)));
        text(&mut svg, LEFT - 8.0, y(value) + 4.0, "end", &format!("{value}"));
    }
    let mut marked: Vec<f64> = points().map(|point| point.0).collect();
    marked.sort_by(f64::total_cmp);
    marked.dedup();
    for size in marked {
        text(&mut svg, x(size), HEIGHT - BOTTOM + 18.0, "middle", &format!("{size}"));
    }
    for (at, (series, colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let path: Vec<String> =
            series.points.iter().map(|(size, value)| format!("{:.1},{:.1}", x(*size), y(*value))).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        );
        for (size, value) in &series.points {
            let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*size), y(*value));
        }
        let _ = write!(svg, "<g fill=\"{colour}\">");
        text(&mut svg, WIDTH - RIGHT, 36.0 + 16.0 * at as f64, "end", &series.name);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// Words as they may stand between two tags.
pub(crate) fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = escaped(words);
    // A String takes everything.
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// The next of 1, 2, 5, 10, 20, …
fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|top| *top >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_factors_are_equal_steps_and_nothing_lies_at_the_bottom() {
        let series = Series { name: "a < b".to_owned(), points: vec![(1.0, 0.0), (10.0, 50.0), (100.0, 100.0)] };
        let svg = lines("title", "size", "value", &[series]);
        assert!(svg.contains("points=\"90.0,340.0 395.0,200.0 700.0,60.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn the_axis_ends_at_a_round_number() {
        let tops = [1.0, 3.0, 28_000.0, 20.0, 51.0].map(|value| round_up(value).round() as u64);
        assert_eq!(tops, [1, 5, 50_000, 20, 100]);
    }
}
