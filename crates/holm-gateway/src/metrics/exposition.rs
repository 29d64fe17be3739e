//! A page of figures that is being written, and the text format of Prometheus, version 0.0.4.
//!
//! ```text
//! # HELP holm_hub_connections Connections that are open now.
//! # TYPE holm_hub_connections gauge
//! holm_hub_connections{protocol="mqtt"} 12
//! ```

use std::fmt::Write;

use super::{Family, Label, QUANTILES, SummaryView};

/// What a figure does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0 at the start of the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How a measure was distributed lately.
    Summary,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

/// The value of one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Whole(u64),
    /// A measure.
    Real(f64),
    /// A distribution.
    Summary(SummaryView),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<SummaryView> for Number {
    fn from(value: SummaryView) -> Self {
        Self::Summary(value)
    }
}

/// One value of a figure, with the labels that tell it from the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Names and values, in the order in which they are shown.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub number: Number,
}

/// A figure with all its points.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name, with `_total` or a unit.
    pub name: String,
    /// What it tells, for people.
    pub help: String,
    /// What it does over time.
    pub kind: Kind,
    /// Its points; there may be none yet.
    pub points: Vec<Point>,
}

/// A page of figures that is being written.
#[derive(Debug, Default)]
pub struct Exposition {
    common: Vec<(String, String)>,
    figures: Vec<Figure>,
}

impl Exposition {
    /// From now on every point has these labels before its own.
    pub fn set_common(&mut self, labels: &[(&str, &str)]) {
        self.common = owned(labels).collect();
    }

    /// A figure that only grows; its name ends with `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.begin(name, help, Kind::Counter);
        self.point(&[], value);
    }

    /// A figure that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.begin(name, help, Kind::Gauge);
        self.point(&[], value);
    }

    /// As [`Exposition::counter`], for each value of a label.
    pub fn counters<L: Label>(&mut self, name: &str, help: &str, family: &Family<L>) {
        self.family(name, help, Kind::Counter, family);
    }

    /// As [`Exposition::gauge`], for each value of a label.
    pub fn gauges<L: Label>(&mut self, name: &str, help: &str, family: &Family<L>) {
        self.family(name, help, Kind::Gauge, family);
    }

    /// Begins a figure; its points follow.
    pub fn begin(&mut self, name: &str, help: &str, kind: Kind) {
        self.figures.push(Figure {
            name: name.to_owned(),
            help: help.to_owned(),
            kind,
            points: Vec::new(),
        });
    }

    /// Adds a point to the figure that was begun last; before the first one it goes nowhere.
    pub fn point(&mut self, labels: &[(&str, &str)], number: impl Into<Number>) {
        let labels = self.common.iter().cloned().chain(owned(labels)).collect();
        if let Some(figure) = self.figures.last_mut() {
            figure.points.push(Point {
                labels,
                number: number.into(),
            });
        }
    }

    /// The figures as values.
    #[must_use]
    pub fn into_figures(self) -> Vec<Figure> {
        self.figures
    }

    /// The page.
    #[must_use]
    pub fn into_text(self) -> String {
        let mut text = String::new();
        for figure in &self.figures {
            write_figure(&mut text, figure).expect("a text in memory takes every line");
        }
        text
    }

    fn family<L: Label>(&mut self, name: &str, help: &str, kind: Kind, family: &Family<L>) {
        self.begin(name, help, kind);
        for (value, counter) in L::VALUES.iter().zip(&family.counters) {
            self.point(&[(L::NAME, value)], counter.get());
        }
    }
}

fn owned(labels: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
}

fn write_figure(text: &mut String, figure: &Figure) -> std::fmt::Result {
    let name = &figure.name;
    let help = figure.help.replace('\\', "\\\\").replace('\n', "\\n");
    writeln!(text, "# HELP {name} {help}")?;
    writeln!(text, "# TYPE {name} {}", figure.kind.as_str())?;
    for point in &figure.points {
        let labels = &point.labels;
        match point.number {
            Number::Whole(value) => writeln!(text, "{name}{} {value}", Labels(labels, None))?,
            Number::Real(value) => writeln!(text, "{name}{} {}", Labels(labels, None), Shown(value))?,
            Number::Summary(view) => {
                writeln!(text, "{name}_sum{} {}", Labels(labels, None), Shown(view.sum))?;
                writeln!(text, "{name}_count{} {}", Labels(labels, None), view.count)?;
                for (quantile, value) in QUANTILES.into_iter().zip(view.quantiles) {
                    writeln!(text, "{name}{} {}", Labels(labels, Some(quantile)), Shown(value))?;
                }
            }
        }
    }
    Ok(())
}

/// Labels as the format has them; nothing when there is none.
struct Labels<'a>(&'a [(String, String)], Option<f64>);

impl std::fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut between = '{';
        for (name, value) in self.0 {
            write!(f, "{between}{name}=\"")?;
            for sign in value.chars() {
                match sign {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    other => f.write_char(other)?,
                }
            }
            f.write_char('"')?;
            between = ',';
        }
        if let Some(quantile) = self.1 {
            write!(f, "{between}quantile=\"{quantile}\"")?;
            between = ',';
        }
        if between == ',' { f.write_char('}') } else { Ok(()) }
    }
}

/// A measure as the format has it.
struct Shown(f64);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_nan() {
            f.write_str("NaN")
        } else if self.0.is_infinite() {
            f.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            write!(f, "{}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConnectionMetrics, Protocol, Summary};
    use super::*;

    #[test]
    fn every_value_of_a_label_is_shown_from_the_start_under_one_head() {
        let (metrics, mut out) = (ConnectionMetrics::default(), Exposition::default());
        let open = metrics.open(Protocol::MqttWebSocket);
        drop(metrics.open(Protocol::Mqtt));

        out.gauges("x_connections", "Open now.", &metrics.open);
        out.counter("x_y_total", "Ys.", 3);
        drop(open);

        let expected = "\
# HELP x_connections Open now.
# TYPE x_connections gauge
x_connections{protocol=\"mqtt\"} 0
x_connections{protocol=\"mqtt_websocket\"} 1
x_connections{protocol=\"amqp\"} 0
x_connections{protocol=\"amqp_websocket\"} 0
# HELP x_y_total Ys.
# TYPE x_y_total counter
x_y_total 3
";
        assert_eq!(out.into_text(), expected);
        assert_eq!(metrics.open.of(Protocol::MqttWebSocket).get(), 0);
    }

    #[test]
    fn a_summary_has_its_sum_its_count_and_the_published_quantiles() {
        let (summary, mut out) = (Summary::default(), Exposition::default());
        summary.observe(0.25);
        out.set_common(&[("edge_device", "d")]);

        out.begin("x_seconds", "Xs.", Kind::Summary);
        out.point(&[("id", "d/m")], summary.read());

        let expected = "\
# HELP x_seconds Xs.
# TYPE x_seconds summary
x_seconds_sum{edge_device=\"d\",id=\"d/m\"} 0.25
x_seconds_count{edge_device=\"d\",id=\"d/m\"} 1
x_seconds{edge_device=\"d\",id=\"d/m\",quantile=\"0.1\"} 0.25
x_seconds{edge_device=\"d\",id=\"d/m\",quantile=\"0.5\"} 0.25
x_seconds{edge_device=\"d\",id=\"d/m\",quantile=\"0.9\"} 0.25
x_seconds{edge_device=\"d\",id=\"d/m\",quantile=\"0.99\"} 0.25
";
        assert_eq!(out.into_text(), expected);
    }

    #[test]
    fn signs_that_mean_something_in_the_format_are_escaped() {
        let mut out = Exposition::default();

        out.begin("x", "a\\b\nc", Kind::Gauge);
        out.point(&[("name", "q\"b\\n\n")], f64::NAN);

        let expected = "# HELP x a\\\\b\\nc\n# TYPE x gauge\nx{name=\"q\\\"b\\\\n\\n\"} NaN\n";
        assert_eq!(out.into_text(), expected);
    }
}
