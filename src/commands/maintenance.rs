//! `maintenance`: for a limited time Apache shows visitors a page and tells tablets to upload later.

use super::{need_machine, open_installed};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::text::format_time;
use crate::cli::{Global, MaintenanceCommand as Command};
use crate::drivers::services::proof;
use crate::host::Host;
use crate::probe::http::Request;
use crate::recipe::render::{Format, render_template};
use crate::session::Session;
use crate::settings::Frontend;
use crate::site::maintenance::{Maintenance, PAGE_MARK, state_file, tablet_answer};
use anyhow::{Context, Result};
use serde_json::json;
use time::{Duration, OffsetDateTime};

/// Apache on this machine takes no longer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// Longer is a mistake, or a site that should be switched off.
const LONGEST: Duration = Duration::days(7);
/// A page, not a document.
const LONGEST_MESSAGE: usize = 2000;
const PAGE: &str = include_str!("maintenance.html.hbs");

pub(crate) async fn run(global: &Global, command: &Command) -> Result<Report> {
    need_machine(global, "switch maintenance on and off")?;
    match command {
        Command::On { until, message } => switch_on(global, until, message).await,
        Command::Off => switch_off(global).await,
    }
}

async fn switch_on(global: &Global, until: &str, message: &str) -> Result<Report> {
    let lines = message_lines(message)?;
    let site = open_installed(global)?;
    refuse_without_apache(&site)?;
    let host = &site.host;
    let now = OffsetDateTime::now_utc();
    let found = Maintenance::between(now, read_end(host, until, now)?)?;
    let end = found.shown_end(host);
    let page = render_page(&lines, &end)?;
    let group = site.facts.flavour.web_account;
    let group = host.accounts.gid(group).with_context(|| format!("this machine has no group {group}"))?;
    found.begin(host, &site.layout, group, &page, &tablet_answer(message, &end))?;
    if let Err(why) = prove_page(&site).await {
        Maintenance::end(host, &site.layout)?;
        return Err(why);
    }
    let report = Report::new(json!({
        "instance": site.instance,
        "maintenance": true,
        "until": format_time(found.until.into()),
    }));
    Ok(report
        .with_remark(format!("maintenance is on until {end}: visitors see a page, tablets are told to upload later"))
        .with_remark("`camcops-provision maintenance off` ends it now"))
}

async fn switch_off(global: &Global) -> Result<Report> {
    let site = Session::open(global)?;
    let was_on = Maintenance::now(&site.host, &site.layout)?.is_some();
    Maintenance::end(&site.host, &site.layout)?;
    let report = Report::new(json!({ "instance": site.instance, "maintenance": false, "until": null }));
    if !was_on {
        return Ok(report.with_remark("maintenance is off already"));
    }
    let report = report.with_remark("maintenance is off: visitors and tablets reach the site");
    if site.settings().web.frontend != Frontend::Apache {
        return Ok(report);
    }
    Ok(match visitor(&site)?.answers(PATIENCE).await {
        Ok(_) => report,
        Err(why) => report.but_failed(
            Exit::Unreachable,
            format!(
                "maintenance is off, but the site does not answer: {}; run `camcops-provision doctor web`",
                why.text
            ),
        ),
    })
}

fn visitor(site: &Session) -> Result<crate::probe::site::SiteAddress> {
    let services = site.drivers.services.as_ref().context("a staged tree has no services")?;
    Ok(proof::visitor_address(services).for_strangers())
}

/// Refuses where no Apache of ours would show the page.
fn refuse_without_apache(site: &Session) -> Result<()> {
    if site.settings().web.frontend != Frontend::Apache {
        return Err(Exit::Settings.because(
            "web.frontend is \"none\", so camcops-provision runs no web server that could show a maintenance page: show one from the web server in front of CamCOPS, or run `camcops-provision stop server`",
        ));
    }
    let path = site.layout.apache_site();
    let text = site.host.read_text(&path)?.unwrap_or_default();
    match text.contains(&state_file(&site.layout)) && site.host.look_into(&site.layout.pages)?.is_some() {
        true => Ok(()),
        false => Err(Exit::Unreachable
            .because(format!("{path} has no maintenance page yet: run `camcops-provision install` first"))),
    }
}

/// Sees what a visitor sees.
async fn prove_page(site: &Session) -> Result<()> {
    let refused = |what: String| {
        Exit::Unreachable
            .because(format!("maintenance stays off: {what}; run `camcops-provision doctor web.config web.apache`"))
    };
    let page = visitor(site)?.ask(Request::get("/login"), PATIENCE).await.map_err(|why| refused(why.text))?;
    match (page.status(), page.0.contains(PAGE_MARK)) {
        (Some(503), true) => Ok(()),
        (code, _) => {
            let code = code.map_or_else(|| "nothing".to_owned(), |code| code.to_string());
            Err(refused(format!("Apache answers {code} instead of the maintenance page")))
        }
    }
}

fn message_lines(message: &str) -> Result<Vec<&str>> {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let refused = |why: &str| Err(Exit::Usage.because(format!("--message: the text {why}")));
    if lines.is_empty() {
        return refused("is empty");
    }
    if message.chars().count() > LONGEST_MESSAGE {
        return refused("has more than 2000 characters");
    }
    match lines.iter().any(|line| line.chars().any(char::is_control)) {
        true => refused("has control characters"),
        false => Ok(lines),
    }
}

fn render_page(lines: &[&str], end: &str) -> Result<String> {
    let view = json!({ "mark": PAGE_MARK, "lines": lines, "end": end });
    render_template("maintenance.html", Format::Xml, PAGE, &view)
}

/// The moment that the administrator means.
fn read_end(host: &Host, text: &str, now: OffsetDateTime) -> Result<OffsetDateTime> {
    let refused = |why: &str| Exit::Usage.because(format!("--until \"{text}\": {why}"));
    let end = match read_duration(text) {
        Some(duration) => now.checked_add(duration),
        None => {
            let told = host.child("date").args([format!("--date={text}"), "+%s".to_owned()]).end()?;
            let seconds = told.output.trim().parse().ok().filter(|_| told.status.success() && !text.trim().is_empty());
            seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        }
    };
    match end {
        None => Err(refused("is not a time; examples: 18:30, \"2026-12-01 06:00\", 30min, 2h, \"tomorrow 07:00\"")),
        Some(end) if end <= now => Err(refused("is in the past")),
        Some(end) if end > now + LONGEST => Err(refused("is more than 7 days away")),
        Some(end) => Ok(end),
    }
}

/// `30min`, `2h`, `1 day`: date(1) would take the letter of the second for a time zone.
fn read_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: i64 = number.parse().ok().filter(|number| *number <= 100_000)?;
    Some(match unit.trim() {
        "m" | "min" | "minute" | "minutes" => Duration::minutes(number),
        "h" | "hour" | "hours" => Duration::hours(number),
        "d" | "day" | "days" => Duration::days(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_time_of_day_a_date_or_a_while() {
        let host = Host::live().unwrap();
        let now = OffsetDateTime::now_utc();
        let end = |text: &str| read_end(&host, text, now);
        assert_eq!(end("30min").unwrap(), now + Duration::minutes(30));
        assert_eq!(end("2 h").unwrap(), now + Duration::hours(2));
        let tomorrow = end("tomorrow 07:00").unwrap() - now;
        assert!(tomorrow > Duration::hours(5) && tomorrow < Duration::hours(33), "{tomorrow}");
        for (text, why) in [
            ("", "is not a time"),
            ("soon", "is not a time"),
            ("--help", "is not a time"),
            ("0h", "is in the past"),
            ("2001-01-01 10:00", "is in the past"),
            ("8d", "is more than 7 days away"),
            ("2999-01-01", "is more than 7 days away"),
        ] {
            let told = end(text).unwrap_err();
            assert!(told.to_string().contains(why), "{text}: {told}");
            assert_eq!(Exit::of(&told), Exit::Usage);
        }
    }

    #[test]
    fn what_the_administrator_says_is_text_on_the_page() {
        let lines = message_lines(" <b>Größe</b> & \"more\" \n\n<script>alert(1)</script>").unwrap();
        let page = render_page(&lines, "18:00").unwrap();
        assert!(page.contains("<p>&lt;b&gt;Größe&lt;/b&gt; &amp; &quot;more&quot;</p>"), "{page}");
        assert!(!page.contains("<script>") && page.contains(PAGE_MARK));
        for bad in ["", " \n ", "a\u{7}b", &"x".repeat(2001)] {
            assert_eq!(Exit::of(&message_lines(bad).unwrap_err()), Exit::Usage);
        }
    }
}
