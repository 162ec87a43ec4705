//! A line over time, as SVG without a script.

use crate::doctor::history::{DAY, MONTH};
use std::fmt::Write as _;
use time::{OffsetDateTime, UtcOffset};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 132.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 22.0;
const KIB: f64 = 1024.0;

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlotUnit {
    PerSecond,
    Count,
    Bytes,
    Seconds,
}

impl PlotUnit {
    /// The largest of its steps that is not above a number, and its name.
    fn step(self, value: f64) -> (f64, &'static str) {
        let steps: &[(f64, &str)] = match self {
            PlotUnit::PerSecond => &[(1.0, "/s")],
            PlotUnit::Count => &[(1.0, "")],
            PlotUnit::Bytes => &[
                (KIB * KIB * KIB * KIB, "TiB"),
                (KIB * KIB * KIB, "GiB"),
                (KIB * KIB, "MiB"),
                (KIB, "KiB"),
                (1.0, "B"),
            ],
            PlotUnit::Seconds => &[(172_800.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")],
        };
        let (limit, name) =
            steps.iter().find(|(size, _)| *size <= value).or(steps.last()).copied().unwrap_or((1.0, ""));
        // Up to two days are told in hours.
        (if limit == 172_800.0 { 86_400.0 } else { limit }, name)
    }

    pub(super) fn show(self, value: f64) -> String {
        let (step, name) = self.step(value);
        let number = value / step;
        let text = match number {
            _ if number.fract() == 0.0 || number >= 100.0 => format!("{number:.0}"),
            _ if number >= 10.0 => format!("{number:.1}"),
            _ => format!("{number:.2}"),
        };
        format!("{text} {name}").trim_end().to_owned()
    }

    /// A round number that is not below this one.
    fn above(self, value: f64) -> f64 {
        let (step, _) = self.step(value);
        let least = if self == PlotUnit::PerSecond { 0.1 } else { 1.0 };
        let number = (value / step).max(least);
        let power = 10f64.powf(number.log10().floor());
        // Half of it is told too.
        let rounds = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
        let round = rounds.iter().map(|round| round * power).find(|round| *round >= number * 0.999_999);
        let round = round.unwrap_or(10.0 * power);
        let even = |round: f64| if self == PlotUnit::Count && round < 2.0 { 2.0 } else { round };
        even(round) * step
    }
}

/// What is drawn.
pub(super) struct Plot<'a> {
    pub(super) name: &'a str,
    pub(super) unit: PlotUnit,
    /// Seconds since 1970, and the number; the oldest first.
    pub(super) points: Vec<(i64, f64)>,
    /// The last moment.
    pub(super) to: i64,
    /// A day or a month.
    pub(super) length: i64,
    /// The time of the machine.
    pub(super) offset: UtcOffset,
}

impl Plot<'_> {
    /// The picture.
    pub(super) fn draw(&self) -> String {
        let from = self.to - self.length;
        let points: Vec<(i64, f64)> =
            self.points.iter().copied().filter(|(at, _)| (from..=self.to).contains(at)).collect();
        let what = if self.length > DAY { "last month" } else { "last day" };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}, {what}\"><text class=\"span\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{what}</text>",
            self.name,
            WIDTH - RIGHT,
            TOP - 7.0
        );
        if points.is_empty() {
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">no samples</text></svg>",
                WIDTH / 2.0,
                HEIGHT / 2.0
            );
            return svg;
        }
        let highest = self.unit.above(points.iter().fold(0.0, |most: f64, (_, value)| most.max(*value)));
        let x = |at: i64| LEFT + (WIDTH - LEFT - RIGHT) * (at - from) as f64 / self.length as f64;
        let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value / highest).clamp(0.0, 1.0);
        for value in [0.0, highest / 2.0, highest] {
            let at = y(value);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 5.0,
                at + 3.5,
                if value == 0.0 { "0".to_owned() } else { self.unit.show(value) }
            );
        }
        for (at, label) in self.marks(from) {
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{0:.1} {1}v4\"/><text x=\"{0:.1}\" y=\"{2}\" text-anchor=\"middle\">{label}</text>",
                x(at),
                HEIGHT - BOTTOM,
                HEIGHT - 6.0
            );
        }
        // Where samples are missing the line is broken.
        let gap = if self.length > DAY { 3 * 3600 } else { 1200 };
        let mut line = String::new();
        let mut last = None;
        for (at, value) in points {
            let is_next = last.is_some_and(|last| at - last <= gap);
            let _ = match is_next {
                true => write!(line, "L{:.1} {:.1}", x(at), y(value)),
                // One without a neighbour is a dot.
                false => write!(line, "M{0:.1} {1:.1}L{0:.1} {1:.1}", x(at), y(value)),
            };
            last = Some(at);
        }
        let _ = write!(svg, "<path class=\"line\" d=\"{line}\"/></svg>");
        svg
    }

    /// Full hours of a day, or days of a month, in the time of the machine.
    fn marks(&self, from: i64) -> Vec<(i64, String)> {
        let step = if self.length > DAY { 7 * DAY } else { DAY / 4 };
        let shift = i64::from(self.offset.whole_seconds());
        // Days are counted from a Monday.
        let monday = 4 * DAY;
        let first = (from + shift - monday).div_euclid(step) * step + step + monday - shift;
        let all = (0..).map(|number| first + number * step).take_while(|at| *at <= self.to);
        all.filter_map(|at| {
            let moment = OffsetDateTime::from_unix_timestamp(at).ok()?.to_offset(self.offset);
            let label = match self.length {
                MONTH => format!("{} {}", moment.day(), &moment.month().to_string()[..3]),
                _ => format!("{:02}:{:02}", moment.hour(), moment.minute()),
            };
            Some((at, label))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_say_them() {
        for (unit, value, text) in [
            (PlotUnit::PerSecond, 0.25, "0.25 /s"),
            (PlotUnit::Count, 12.0, "12"),
            (PlotUnit::Bytes, 1_610_612_736.0, "1.50 GiB"),
            (PlotUnit::Bytes, 0.0, "0 B"),
            (PlotUnit::Seconds, 7200.0, "2 h"),
            (PlotUnit::Seconds, 90_000.0, "25 h"),
            (PlotUnit::Seconds, 432_000.0, "5 d"),
        ] {
            assert_eq!(unit.show(value), text);
        }
        for (unit, value, above) in [
            (PlotUnit::PerSecond, 0.0, "0.10 /s"),
            (PlotUnit::PerSecond, 3.1, "4 /s"),
            (PlotUnit::Count, 0.0, "2"),
            (PlotUnit::Count, 151.0, "200"),
            (PlotUnit::Bytes, 1_500_000_000.0, "2 GiB"),
            (PlotUnit::Seconds, 80_000.0, "40 h"),
        ] {
            assert_eq!(unit.show(unit.above(value)), above, "{value}");
        }
    }

    #[test]
    fn a_line_is_broken_where_samples_are_missing() {
        let to = 1_796_000_000;
        let plot = |points| Plot { name: "x", unit: PlotUnit::Count, points, to, length: DAY, offset: UtcOffset::UTC };
        let svg = plot(vec![(to - 90_000, 9.0), (to - 9000, 1.0), (to - 8700, 2.0), (to - 300, 1.0)]).draw();
        let line = svg.split("class=\"line\" d=\"").nth(1).unwrap();
        assert_eq!((line.matches('M').count(), line.matches('L').count()), (2, 3), "{svg}");
        assert!(svg.contains(">06:00<") && svg.contains(">00:00<"), "{svg}");
        assert!(plot(Vec::new()).draw().contains("no samples"));
        let month = Plot { length: MONTH, ..plot(vec![(to, 1.0)]) }.draw();
        assert!(month.contains(" Nov<") && month.contains("last month"), "{month}");
    }
}
