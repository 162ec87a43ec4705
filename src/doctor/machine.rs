//! The machine under the site.

mod former;
mod names;
mod ports;

use super::look::mended_by_install;
use super::{Finding, Look};
use crate::base::kernel;
use crate::base::terminal::count_of;
use crate::drivers::release;
use crate::host::{Child, DiskSpace};
use crate::resource::Resource;
use anyhow::Result;
pub(crate) use former::check_former;
pub(crate) use names::find_nameless;
pub(crate) use names::{check_names, is_ours};
pub(crate) use ports::check_ports;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const MIB: u64 = 1 << 20;
/// Below these a disk is about to be full: a share of it, or as much as is always enough.
const SCARCE: (f64, u64) = (0.10, 4096 * MIB);
const FULL: (f64, u64) = (0.03, 512 * MIB);
/// What a release, the packages and an empty database need.
const TO_INSTALL: u64 = 2048 * MIB;
/// What a small site needs, by measurement about 1300 MiB with its servers.
const LEAST_MEMORY_MB: u64 = 900;
const SMALL_MEMORY_MB: u64 = 1900;
/// One for the pages, and one for what is done in the background.
const ENOUGH_PROCESSORS: u32 = 2;
/// When this program was made: no clock that is right shows less.
const MADE: Duration = Duration::from_secs(1_767_225_600);

pub(crate) async fn check_packages(look: &Look<'_>) -> Result<Finding> {
    let (_, plan) = look.plan().await?;
    let missing: Vec<&Resource> = plan
        .changes
        .iter()
        .map(|planned| &planned.change.resource)
        .filter(|resource| matches!(resource, Resource::Package(_)))
        .collect();
    if missing.is_empty() {
        return Ok(Finding::ok("all packages are installed"));
    }
    let names: Vec<&str> = missing.iter().map(|resource| resource.name()).collect();
    let names = names.join(", ");
    if !look.before {
        return Ok(Finding::for_install(format!("missing: {names}")));
    }
    // What can't be fetched is known now.
    let packages = look.site.drivers.packages()?;
    crate::drivers::packages::refuse_offline(packages, &look.site.host, missing.into_iter())?;
    Ok(Finding::ok(format!("install will fetch {names}")))
}

pub(crate) async fn check_python(look: &Look<'_>) -> Result<Vec<Finding>> {
    let site = look.site;
    if look.before {
        return Ok(vec![match release::WantedRelease::new(site.settings(), &site.facts) {
            Ok(wanted) => Finding::ok(format!("CamCOPS {} on {}", wanted.version.as_str(), wanted.python.path)),
            Err(why) => Finding::failed(why.0, "camcops-provision plan"),
        }]);
    }
    let mut findings = Vec::new();
    let python = format!("{}/bin/python3", site.layout.venv);
    if let Err(why) = Path::new(&python).metadata() {
        findings.push(Finding::for_install(format!("{python}: {why}: the Python of the release is gone")));
    }
    let pending = look.pending(|planned| matches!(planned.change.resource, Resource::Release(_))).await?;
    if !pending.is_empty() {
        findings.extend(mended_by_install(pending, ""));
    }
    if !findings.is_empty() {
        return Ok(findings);
    }
    let target = site.host.read_link(&site.layout.venv)?.unwrap_or_default();
    let name = target.rsplit('/').next().unwrap_or_default();
    Ok(vec![match site.settings().camcops.wanted_version().is_known() {
        true => Finding::ok(name),
        false => Finding::warning(
            format!("{name}: this camcops-provision was not tested with that version of CamCOPS"),
            "apt-get install --only-upgrade camcops-provision",
        ),
    }])
}

pub(crate) fn check_disk(look: &Look<'_>) -> Result<Vec<Finding>> {
    let layout = &look.site.layout;
    let mut places: BTreeMap<u64, &str> = BTreeMap::new();
    let written = [
        "/",
        "/run",
        "/tmp",
        "/var/tmp",
        "/var/log",
        "/var/lib/mysql",
        "/var/lib/rabbitmq",
        "/var/lib/camcops-provision",
        crate::layout::RELEASES,
        &layout.state,
        &layout.downloads,
        &layout.lock,
        &layout.data,
        look.site.settings().backup.directory.as_str(),
    ];
    for place in written {
        if let Ok(data) = std::fs::metadata(place) {
            places.entry(data.dev()).or_insert(place);
        }
    }
    let mut findings = Vec::new();
    let releases = Path::new(crate::layout::RELEASES);
    let releases = releases.ancestors().find_map(|place| std::fs::metadata(place).ok()).map(|data| data.dev());
    for (device, place) in places {
        let DiskSpace { bytes: all, free_bytes: free, inodes, free_inodes: left } = DiskSpace::at(Path::new(place))?;
        look.measure("disk_free_bytes", Some(place), free as f64);
        if all == 0 {
            continue;
        }
        let remedy =
            format!("du --one-file-system --human-readable --max-depth=2 {place} | sort --human-numeric-sort | tail");
        let space = format!("{place}: {} of {} MiB free", free / MIB, all / MIB);
        findings.push(if look.before && Some(device) == releases && free < TO_INSTALL {
            Finding::failed(format!("{space}, but an installation needs {} MiB", TO_INSTALL / MIB), remedy)
        } else if is_below(free, all, FULL) {
            Finding::failed(space, remedy)
        } else if inodes > 0 && is_below(left, inodes, (FULL.0, u64::MAX)) {
            let files = format!("{place}: {left} of {inodes} inodes free");
            Finding::failed(
                files,
                format!("du --one-file-system --inodes --max-depth=2 {place} | sort --numeric-sort | tail"),
            )
        } else if is_below(free, all, SCARCE) {
            Finding::warning(space, remedy)
        } else {
            Finding::ok(space)
        });
    }
    Ok(findings)
}

fn is_below(free: u64, all: u64, (share, enough): (f64, u64)) -> bool {
    (free as f64) < all as f64 * share && free < enough
}

pub(crate) fn check_memory(look: &Look<'_>) -> Result<Vec<Finding>> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let mib = |name: &str| kernel::kib_of(&text, name).unwrap_or(0) / 1024;
    let (all, free, swap) = (mib("MemTotal:"), mib("MemAvailable:"), mib("SwapFree:"));
    look.measure("memory_available_bytes", None, (free * MIB) as f64);
    let found = format!("{free} of {all} MiB free");
    if look.before {
        let more = "add memory, or run some services on another machine (services.disabled)";
        return Ok(vec![if all + swap < LEAST_MEMORY_MB {
            Finding::failed(format!("{found}: the site would not start"), more)
        } else if all + swap < SMALL_MEMORY_MB {
            Finding::warning(format!("{found}: enough for few users"), more)
        } else {
            Finding::ok(found)
        }]);
    }
    let remedy = "camcops-provision status";
    let mut findings = vec![match free + swap {
        ..100 => Finding::failed(found, remedy),
        low if low < all / 20 => Finding::warning(found, remedy),
        _ => Finding::ok(found),
    }];
    let killed = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    if let Some(killed @ 1_u64..) = kernel::value_of(&killed, "oom_kill ").and_then(|killed| killed.parse().ok()) {
        findings.push(Finding::warning(
            format!("processes killed for lack of memory since boot: {killed}"),
            "journalctl --dmesg --grep 'Out of memory|oom-kill'",
        ));
    }
    Ok(findings)
}

pub(crate) fn check_processors(look: &Look<'_>) -> Result<Finding> {
    Ok(match look.site.facts.cores {
        ..ENOUGH_PROCESSORS => Finding::warning(
            "1 processor: pages are slow while an export or a PDF is made",
            "nproc   # give the machine a second processor, unless the site is only a trial",
        ),
        some => Finding::ok(format!("{some} processors")),
    })
}

fn clock_question<'a>(look: &'a Look<'_>) -> Child<'a> {
    let asked = look.site.host.child("timedatectl");
    asked.args(["show", "--property=NTPSynchronized"]).patience(Duration::from_secs(5))
}

pub(crate) fn begin_clock(look: &Look<'_>) -> Result<()> {
    look.early.clock.begin(clock_question(look).begin()?.end_apart());
    Ok(())
}

pub(crate) async fn check_time(look: &Look<'_>) -> Result<Finding> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    if now.unwrap_or_default() < MADE {
        return Ok(Finding::failed(
            "the clock shows a date before this program was released",
            "timedatectl set-time 'YYYY-MM-DD hh:mm:ss'",
        ));
    }
    let asked = match look.early.clock.take().await {
        Some(asked) => asked,
        None => clock_question(look).end(),
    };
    let said = asked.map(|ended| ended.output).unwrap_or_default();
    Ok(match said.trim() {
        "NTPSynchronized=yes" => Finding::ok("the clock is synchronised"),
        "NTPSynchronized=no" => match Path::new("/run/systemd/container").exists() {
            true => Finding::warning(
                "no time synchronisation found (seen from inside a container)",
                "timedatectl status   # on the host of the container",
            ),
            false => Finding::warning(
                "no time synchronisation found",
                "apt-get install systemd-timesyncd && timedatectl set-ntp true",
            ),
        },
        _ => Finding::not_applicable("cannot be checked: timedatectl does not answer"),
    })
}

pub(crate) fn check_selinux(look: &Look<'_>) -> Result<Finding> {
    let enforced = std::fs::read_to_string("/sys/fs/selinux/enforce").unwrap_or_default();
    if enforced.trim() != "1" {
        return Ok(Finding::not_applicable("SELinux is not enforced here"));
    }
    let layout = &look.site.layout;
    let places = ["/etc/camcops", &layout.socket_dir, &layout.data, &layout.state];
    let asked = look.site.host.child("restorecon");
    let ended = asked.args(["-n", "-R", "-v"]).args(places).end()?;
    let wrong = ended.output.lines().filter(|line| !line.is_empty()).count();
    Ok(match wrong {
        0 => Finding::ok("all labels are right"),
        some => Finding::failed(
            format!("{} with a wrong label", count_of(some, "file")),
            format!("restorecon -R -v {}", places.join(" ")),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_disk_may_be_fuller_than_a_small_one() {
        let full = |free, all| is_below(free, all, FULL);
        assert!(full(0, 4 * MIB) && full(100 * MIB, 20_000 * MIB));
        assert!(!full(MIB, 4 * MIB) && !full(600 * MIB, 1_000_000 * MIB));
        assert!(is_below(1024 * MIB, 20_000 * MIB, SCARCE));
        assert!(!is_below(5000 * MIB, 1_000_000 * MIB, SCARCE));
    }
}
