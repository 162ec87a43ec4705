//! CamCOPS's own tests, in the release as the services run it and in a plain environment of the same packages.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::wheelhouse;
use std::collections::BTreeSet;
use std::path::Path;

/// Upstream's documentation stands beside its sources alone.
const NEEDS_SOURCES: &str = "test_all_tasks";

const RELEASE: &str = "/usr/share/camcops/venv";
const PLAIN: &str = "/srv/plain";

#[test]
#[ignore = "thorough: CamCOPS's own tests take five minutes, and they are run twice"]
fn the_release_fails_no_test_that_its_packages_pass() {
    let Some((machine, _)) = installed() else {
        return;
    };
    // Nothing else is to write or to take processors meanwhile.
    machine.run("systemctl stop camcops.target");
    machine.run(&format!(
        "{RELEASE}/bin/camcops_server demo_camcops_config > /srv/demo.conf 2> /dev/null
         install --directory --owner=www-data --mode=0700 /srv/tests"
    ));
    make_plain(&machine);
    let hook = "PYTHONPATH=/usr/share/camcops/python WAND_MAGICK_LIBRARY_SUFFIX=-6.Q16";
    let (passed, failed) = tested(&machine, RELEASE, hook);
    let (passed_plain, failed_plain) = tested(&machine, PLAIN, "");
    eprintln!(
        "the release: {passed} passed, {failed:?} failed; plain packages: {passed_plain} passed, {failed_plain:?} failed"
    );
    assert!(passed > 690, "{passed}");
    let more: Vec<&String> = failed.difference(&failed_plain).collect();
    assert!(more.is_empty(), "{more:?}");
    let known = |name: &&String| name.contains(NEEDS_SOURCES);
    assert!(failed.iter().all(|name| known(&name)), "{failed:?}");
}

/// What pip makes of the list of packages.
fn make_plain(machine: &Booted) {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("requirements/build.txt");
    std::fs::copy(build, machine.path("/srv/build.txt")).unwrap();
    std::fs::write(machine.path("/srv/camcops.txt"), wheelhouse::lock(wheelhouse::NEWEST, 11)).unwrap();
    machine.run(&format!(
        "python3.11 -m venv {PLAIN}
         pip='{PLAIN}/bin/pip install --quiet --no-index --find-links /srv/wheelhouse --no-deps'
         $pip -r /srv/build.txt
         $pip --no-build-isolation -r /srv/camcops.txt"
    ));
}

/// How many tests pass, and the names of the others.
fn tested(machine: &Booted, venv: &str, environment: &str) -> (usize, BTreeSet<String>) {
    let (_, told, why) = machine.tried(&format!(
        "cd {venv}/lib/python3.11/site-packages/camcops_server
         setpriv --reuid=www-data --regid=www-data --init-groups env --ignore-environment \
             HOME=/srv/tests TMPDIR=/srv/tests MPLCONFIGDIR=/srv/tests LANG=C.UTF-8 PATH=/usr/bin:/bin \
             PYTHONDONTWRITEBYTECODE=1 CAMCOPS_CONFIG_FILE=/srv/demo.conf {environment} \
             {venv}/bin/python -W ignore -m pytest -p no:cacheprovider --database-in-memory \
             --override-ini=log_cli=false --quiet -rfE --show-capture=no --tb=line"
    ));
    let passed = told.lines().rev().find_map(|line| line.split(" passed").next()?.rsplit(' ').next()?.parse().ok());
    let passed = passed.unwrap_or_else(|| panic!("{told}{why}"));
    let failed = told
        .lines()
        .filter_map(|line| line.strip_prefix("FAILED ").or_else(|| line.strip_prefix("ERROR ")))
        .map(|line| line.split(" - ").next().unwrap_or(line).to_owned());
    (passed, failed.collect())
}
