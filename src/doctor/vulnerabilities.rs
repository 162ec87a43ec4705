//! Published advisories about what the site is made of.

use super::{Finding, Look, or_well};
use crate::advisories::{Examination, FlawEnding, KindState, SiteFlaw, own_files};
use crate::base::error::Exit;
use crate::base::terminal::count_of;
use crate::layout::ADVISORIES;
use anyhow::Result;
use std::collections::BTreeMap;

const REMEDY: &str = "camcops-provision vulnerabilities";

/// What stands in the directory for advisories is read, and nobody is asked: this is looked at every five minutes.
pub(crate) fn check_vulnerabilities(look: &Look<'_>) -> Result<Vec<Finding>> {
    let host = &look.site.host;
    let nothing = || Finding::not_applicable(format!("there are no advisories in {ADVISORIES}"));
    // What the site is made of takes hundreds of files to find out.
    let examined = own_files(host).and_then(|files| match files.is_empty() {
        true => Ok(None),
        false => Examination::of(host, &[], None).map(Some),
    });
    let examination = match examined {
        Ok(Some(examination)) => examination,
        Ok(None) => return Ok(vec![nothing()]),
        // The site is as well as it was before somebody brought this.
        Err(why) if [Exit::Unusable, Exit::CannotCreate].contains(&Exit::of(&why)) => {
            return Ok(vec![Finding::warning(format!("{why:#}"), REMEDY)]);
        }
        Err(why) => return Err(why),
    };
    let kinds = examination.kinds(look.site.settings().advisories.max_age_days.get());
    if kinds.iter().all(|kind| kind.advisories == 0) {
        return Ok(vec![nothing()]);
    }
    for kind in kinds.iter().filter(|kind| kind.advisories > 0) {
        look.measure("advisories_open", Some(kind.kind.as_str()), kind.open as f64);
        if let Some(age) = kind.age {
            look.measure("advisories_age_seconds", Some(kind.kind.as_str()), age.as_seconds_f64());
        }
    }
    Ok(judge_state(&kinds, &examination.flaws))
}

/// What somebody can do something about is a warning; what nothing ends is only told.
fn judge_state(kinds: &[KindState], flaws: &[SiteFlaw]) -> Vec<Finding> {
    let mut ended: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut unending, mut judged) = (0, 0);
    for flaw in flaws {
        match flaw.ending {
            FlawEnding::Judged { .. } => judged += 1,
            FlawEnding::Nothing => unending += 1,
            _ => *ended.entry(flaw.kind.plural()).or_default() += 1,
        }
    }
    let mut findings: Vec<Finding> = ended
        .into_iter()
        .map(|(kind, number)| {
            Finding::warning(format!("{} about {kind}, for which there is a fix", count_open(number)), REMEDY)
        })
        .collect();
    for kind in kinds.iter().filter(|kind| kind.advisories > 0 && !kind.is_fresh) {
        let age = kind.age.map_or_else(
            || "of an unknown date".to_owned(),
            |age| format!("{} old", count_of(age.whole_days(), "day")),
        );
        let found = format!("the advisories for the {} are {age}: newer flaws are not known", kind.kind.plural());
        findings.push(Finding::warning(found, format!("copy newer ones to {ADVISORIES}")));
    }
    or_well(findings, || {
        let known = kinds.iter().filter(|kind| kind.advisories > 0).map(|kind| kind.kind.plural());
        Finding::ok(format!(
            "no fixable advisory is open, of {}; {unending} without a fix, {judged} judged not to apply",
            known.collect::<Vec<_>>().join(", ")
        ))
    })
}

fn count_open(number: usize) -> String {
    if number == 1 { "1 advisory is open".to_owned() } else { format!("{number} advisories are open") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advisories::AdvisoryState;
    use crate::advisories::parts::PartKind;
    use crate::doctor::Health;
    use time::Duration;

    fn kind(kind: PartKind, advisories: usize, days: i64) -> KindState {
        let age = (advisories > 0).then(|| Duration::days(days));
        let is_fresh = age.is_some_and(|age| age <= Duration::days(7));
        KindState {
            kind,
            parts: 1,
            open: 0,
            judged: 0,
            advisories,
            newest: None,
            age,
            is_fresh,
            state: AdvisoryState::Clean,
        }
    }

    fn flaw(kind: PartKind, ending: FlawEnding) -> SiteFlaw {
        let text = || "x".to_owned();
        SiteFlaw {
            kind,
            package: text(),
            version: text(),
            packages: Vec::new(),
            id: text(),
            aliases: Vec::new(),
            summary: text(),
            fixed: Vec::new(),
            ending,
        }
    }

    #[test]
    fn a_warning_is_what_somebody_can_act_on() {
        let kinds = [kind(PartKind::Python, 9, 1), kind(PartKind::Program, 0, 0), kind(PartKind::System, 9, 7)];
        let judged = FlawEnding::Judged { reason: "because".into() };
        let well = judge_state(&kinds, &[flaw(PartKind::Python, judged), flaw(PartKind::System, FlawEnding::Nothing)]);
        assert_eq!(well.len(), 1);
        assert_eq!(well[0].state, Health::Ok);
        assert!(well[0].found.ends_with("1 without a fix, 1 judged not to apply"), "{well:?}");
        let command = FlawEnding::Package { command: "x".into() };
        let open =
            judge_state(&kinds, &[flaw(PartKind::System, command), flaw(PartKind::Program, FlawEnding::Program)]);
        assert_eq!(open.iter().map(|one| one.state).collect::<Vec<_>>(), [Health::Warning; 2]);
        assert!(open[0].found.starts_with("1 advisory is open about crates of this program"), "{open:?}");
        let old = judge_state(&[kind(PartKind::Python, 9, 8)], &[]);
        assert_eq!((old.len(), old[0].state), (1, Health::Warning));
        assert!(old[0].found.contains("are 8 days old"), "{old:?}");
    }
}
