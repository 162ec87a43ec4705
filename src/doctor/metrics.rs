//! What the checks found, for those who watch machines: Prometheus' text format, and the words of a monitoring plugin.

use super::{CheckOutcome, Health, Measure, worst_state};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Exit code and word of the monitoring plugins' convention.
fn plugin_state(state: Health) -> (u8, &'static str) {
    match state {
        Health::NotApplicable | Health::Ok => (0, "OK"),
        Health::Warning => (1, "WARNING"),
        Health::Failed => (2, "CRITICAL"),
    }
}

/// What a plugin exits with that could not find out.
pub(crate) const UNKNOWN: u8 = 3;

/// The line of a monitoring plugin with its numbers, what is wrong after it, and the exit code.
pub(crate) fn plugin_output(outcomes: &[CheckOutcome]) -> (String, u8) {
    let (code, word) = plugin_state(worst_state(outcomes));
    let wrong: Vec<&CheckOutcome> = outcomes.iter().filter(|outcome| outcome.state > Health::Ok).collect();
    let mut text = format!("CAMCOPS {word}: ");
    match wrong.as_slice() {
        [] => {
            let _ = write!(text, "{} checks passed", outcomes.len());
        }
        some => {
            let named: Vec<String> = some.iter().map(|outcome| format!("{} {}", outcome.id, outcome.state)).collect();
            text.push_str(&named.join(", "));
        }
    }
    text.push_str(" |");
    for measure in outcomes.iter().flat_map(|outcome| &outcome.measures) {
        let _ = match &measure.of {
            None => write!(text, " {}={}", measure.name, measure.value),
            Some(of) => write!(text, " '{}:{of}'={}", measure.name, measure.value),
        };
    }
    text.push('\n');
    for outcome in wrong {
        for finding in outcome.findings.iter().filter(|one| one.state > Health::Ok) {
            // A bar would begin more numbers.
            let found = finding.found.replace('|', "/").replace('\n', " ");
            let _ = writeln!(text, "{} {}: {found}", outcome.id, finding.state);
        }
    }
    (text, code)
}

/// Prometheus' text format.
pub(crate) fn prometheus_text(instance: &str, outcomes: &[CheckOutcome]) -> String {
    let mut text = String::new();
    let instance = escape_label(instance);
    let head = |text: &mut String, name: &str, help: &str| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
    };
    let name = "camcops_check_state";
    head(&mut text, name, "0 ok or not applicable, 1 warning, 2 failed.");
    for outcome in outcomes {
        let state = plugin_state(outcome.state).0;
        let _ = writeln!(text, "{name}{{instance=\"{instance}\",check=\"{}\"}} {state}", outcome.id);
    }
    let mut measures: BTreeMap<&str, Vec<&Measure>> = BTreeMap::new();
    for measure in outcomes.iter().flat_map(|outcome| &outcome.measures) {
        measures.entry(measure.name).or_default().push(measure);
    }
    for (name, all) in measures {
        let name = format!("camcops_{name}");
        head(&mut text, &name, "What camcops-provision doctor has measured.");
        for measure in all {
            let of = measure.of.as_deref().map(|of| format!(",of=\"{}\"", escape_label(of)));
            let _ = writeln!(text, "{name}{{instance=\"{instance}\"{}}} {}", of.unwrap_or_default(), measure.value);
        }
    }
    text
}

fn escape_label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Finding;

    fn outcome(id: &'static str, finding: Finding, measures: Vec<Measure>) -> CheckOutcome {
        CheckOutcome {
            id,
            looks_at: "",
            matters: "",
            state: finding.state,
            findings: vec![finding],
            measures,
            milliseconds: 0,
        }
    }

    fn some() -> Vec<CheckOutcome> {
        let days = Measure { name: "certificate_days_left", of: None, value: 20.0 };
        let free = Measure { name: "disk_free_bytes", of: Some("/a \"b\"".into()), value: 1.5 };
        vec![
            outcome("disk", Finding::ok("much"), vec![free]),
            outcome("certificate", Finding::warning("a|b", "renew"), vec![days]),
        ]
    }

    #[test]
    fn a_plugin_says_the_worst_in_one_line() {
        let (text, code) = plugin_output(&some());
        assert_eq!(code, 1);
        assert_eq!(
            text,
            "CAMCOPS WARNING: certificate warning | 'disk_free_bytes:/a \"b\"'=1.5 certificate_days_left=20\ncertificate warning: a/b\n"
        );
        assert_eq!(plugin_output(&some()[..1]).1, 0);
    }

    #[test]
    fn metrics_are_in_families() {
        let text = prometheus_text("camcops", &some());
        assert!(text.contains("camcops_check_state{instance=\"camcops\",check=\"certificate\"} 1\n"));
        assert!(text.contains("camcops_disk_free_bytes{instance=\"camcops\",of=\"/a \\\"b\\\"\"} 1.5\n"));
        assert!(text.contains("camcops_certificate_days_left{instance=\"camcops\"} 20\n"));
        assert_eq!(text.matches("# TYPE").count(), 3);
    }
}
