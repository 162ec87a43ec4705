//! What `status`, `doctor` and `stats` know of a site, as one page of HTML without a script: for `status --html`, and for the
//! page that Apache shows with monitor.page.

mod plot;

use super::doctor::examine_site;
use super::stats::{Measured, measure_services};
use super::status::{SiteStatus, collect_status};
use super::support::mask_log_lines;
use crate::backup::summary::BackupSummary;
use crate::base::terminal::count_of;
use crate::base::text::show_plain;
use crate::cli::{Doctor, Global};
use crate::doctor::history::{DAY, History, HistorySample, MONTH, Quantity};
use crate::doctor::{CheckOutcome, Health, worst_state};
use crate::recipe::render::{Format, render_template};
use crate::session::Session;
use anyhow::Result;
use plot::{Plot, PlotUnit};
use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset};

const PAGE: &str = include_str!("overview/page.html.hbs");
/// No text of one row is longer.
const LONGEST_TEXT: usize = 2000;

/// What is plotted, and as what.
const PLOTS: [(&str, Quantity, PlotUnit); 7] = [
    ("Requests", Quantity::Requests, PlotUnit::PerSecond),
    ("Waiting tasks", Quantity::Waiting, PlotUnit::Count),
    ("Memory of the services", Quantity::Memory, PlotUnit::Bytes),
    ("Database connections", Quantity::Connections, PlotUnit::Count),
    ("Free space on the fullest disk", Quantity::Disk, PlotUnit::Bytes),
    ("Age of the newest backup", Quantity::BackupAge, PlotUnit::Seconds),
    ("Size of the newest backup", Quantity::BackupSize, PlotUnit::Bytes),
];

/// A site, looked at once from all sides.
pub(super) struct Overview {
    pub(super) site: Session,
    pub(super) outcomes: Vec<CheckOutcome>,
    pub(super) status: SiteStatus,
    /// Warnings of the recipe.
    pub(super) warnings: Vec<String>,
    measured: Option<Measured>,
    /// What could not be looked at, and why.
    notes: Vec<String>,
    at: OffsetDateTime,
}

impl Overview {
    /// Looks at it. A staged tree has files alone, and what can't be looked at is told on the page.
    pub(super) async fn take(global: &Global) -> Result<Overview> {
        let mut notes = Vec::new();
        let (mut outcomes, mut measured) = (Vec::new(), None);
        if global.root.is_none() {
            match examine_site(global, &Doctor::default()).await {
                Ok((_, found)) => outcomes = found,
                Err(why) => notes.push(format!("doctor: {why:#}")),
            }
            match measure_services(global).await {
                Ok(found) => measured = Some(found),
                Err(why) => notes.push(format!("stats: {why:#}")),
            }
        }
        let (site, status, warnings) = collect_status(global).await?;
        let at = OffsetDateTime::now_utc();
        Ok(Overview { site, outcomes, status, warnings, measured, notes, at })
    }

    /// The numbers of this moment.
    pub(super) fn sample(&self, history: &mut History) -> Result<HistorySample> {
        let layout = &self.site.layout;
        let now = self.at.unix_timestamp();
        let log = format!("{}/{}_access.log", layout.apache_logs, layout.slug);
        let backup = BackupSummary::of(&self.site.host, &self.site)?.and_then(|summary| summary.newest);
        let measured = self.measured.as_ref();
        let least_free = self
            .outcomes
            .iter()
            .flat_map(|outcome| &outcome.measures)
            // Locks are in memory.
            .filter(|measure| measure.name == "disk_free_bytes" && measure.of.as_deref() != Some(layout.lock.as_str()))
            .map(|measure| measure.value)
            .reduce(f64::min);
        Ok(HistorySample::taken(now)
            .with(Quantity::Requests, history.count_requests(&log, now))
            .with(Quantity::Waiting, measured.and_then(Measured::waiting_tasks))
            .with(Quantity::Memory, measured.and_then(Measured::service_memory))
            .with(Quantity::Connections, measured.and_then(Measured::open_connections))
            .with(Quantity::Disk, least_free)
            .with(Quantity::BackupAge, backup.as_ref().map(|newest| newest.age_seconds as f64))
            .with(Quantity::BackupSize, backup.as_ref().map(|newest| newest.bytes as f64)))
    }

    /// The page. Nothing in it is a line of a log: that may be of a patient.
    pub(super) fn page(&self, history: &History) -> Result<String> {
        let (offset, made) = self.site.host.local_time(self.at);
        let plots = match history.samples.is_empty() {
            true => Vec::new(),
            false => PLOTS.map(|plot| self.plot(plot, history, offset)).to_vec(),
        };
        let mut view = json!({
            "instance": self.site.instance,
            "url": self.site.url(),
            "version": env!("CARGO_PKG_VERSION"),
            "made": made,
            "state": if self.outcomes.is_empty() { "unknown".to_owned() } else { worst_state(&self.outcomes).to_string() },
            "summary": self.summary(),
            "maintenance": self.status.maintenance_text().unwrap_or_default(),
            "notes": self.notes,
            "problems": self.problems(),
            "services": self.services(),
            "rows": self.status.rows(&self.site).into_iter().map(|(name, what)| json!({ "name": name, "what": what })).collect::<Vec<_>>(),
            "checks": self.checks(),
        });
        mask_log_lines(&mut view);
        make_plain(&mut view);
        view["plots"] = plots.into();
        render_template("page.html", Format::Xml, PAGE, &view)
    }

    fn summary(&self) -> String {
        let count = |state| self.outcomes.iter().filter(|outcome| outcome.state == state).count();
        let all = self.outcomes.len();
        match (all, count(Health::Failed), count(Health::Warning)) {
            (0, ..) => "The checks of doctor were not run".to_owned(),
            (_, failed, warned) => {
                format!("{}: {failed} failed, {}", count_of(all, "check"), count_of(warned, "warning"))
            }
        }
    }

    fn problems(&self) -> Vec<Value> {
        let worst_first = [Health::Failed, Health::Warning];
        let of = |state: Health| {
            self.outcomes.iter().flat_map(move |outcome| {
                outcome.findings.iter().filter(move |one| one.state == state).map(move |one| {
                    json!({
                        "state": state.to_string(),
                        "id": outcome.id,
                        "found": one.found,
                        "matters": outcome.matters,
                        "remedy": one.remedy.as_deref().unwrap_or_default(),
                    })
                })
            })
        };
        let warnings = self.warnings.iter();
        let warnings = warnings
            .map(|text| json!({ "state": "warning", "id": "settings", "found": text, "matters": "", "remedy": "" }));
        worst_first.into_iter().flat_map(of).chain(warnings).collect()
    }

    fn checks(&self) -> Vec<Value> {
        let rows = self.outcomes.iter().flat_map(|outcome| outcome.findings.iter().map(move |one| (outcome.id, one)));
        rows.map(|(id, one)| {
            json!({
                "state": match one.state { Health::NotApplicable => "n/a".to_owned(), state => state.to_string() },
                "id": id,
                "found": one.found,
            })
        })
        .collect()
    }

    fn services(&self) -> Vec<Value> {
        self.measured.as_ref().map(Measured::rows).unwrap_or_default()
    }

    fn plot(&self, (name, quantity, unit): (&str, Quantity, PlotUnit), history: &History, offset: UtcOffset) -> Value {
        let points: Vec<(i64, f64)> =
            history.samples.iter().filter_map(|sample| Some((sample.at, sample.get(quantity)?))).collect();
        let to = self.at.unix_timestamp();
        let now = history.samples.last().and_then(|sample| sample.get(quantity));
        let draw = |length| Plot { name, unit, points: points.clone(), to, length, offset }.draw();
        json!({
            "name": name,
            "now": now.map_or_else(|| "not known".to_owned(), |value| unit.show(value)),
            "day": draw(DAY),
            "month": draw(MONTH),
        })
    }
}

/// Makes every text of a document one harmless line.
fn make_plain(value: &mut Value) {
    match value {
        Value::String(text) => {
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            *text = show_plain(&lines.join(" / "), LONGEST_TEXT).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}");
        }
        Value::Array(all) => all.iter_mut().for_each(make_plain),
        Value::Object(all) => all.values_mut().for_each(make_plain),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_found_is_text_on_the_page() {
        let bad = "<script>alert('x')</script>\n\u{1b}[31m & \"q\" \u{202e}";
        let finding = json!({ "state": "failed", "id": bad, "found": bad, "matters": bad, "remedy": bad });
        let row = json!({ "name": bad, "what": bad });
        let service =
            json!({ "name": bad, "state": bad, "cpu": bad, "memory": bad, "processes": bad, "restarts": bad });
        let mut view = json!({
            "instance": bad, "url": bad, "version": bad, "made": bad, "state": bad, "summary": bad, "maintenance": bad,
            "notes": [bad], "problems": [finding], "services": [service], "rows": [row], "checks": [finding],
        });
        make_plain(&mut view);
        view["plots"] = json!([{ "name": "x", "now": "1", "day": "<svg></svg>", "month": "" }]);
        let page = render_template("page.html", Format::Xml, PAGE, &view).unwrap();
        assert!(!page.contains("<script") && !page.contains('\u{1b}') && !page.contains('\u{202e}'), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("<svg></svg>"));
        // Nothing comes from elsewhere, and nothing is run.
        for word in ["http://", "https://", "src=", "href=", "url(", "@import", "<link", "onload"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
