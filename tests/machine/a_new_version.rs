//! A release as CamCOPS asks for it, with data in the site, becomes a hardened one, with a failure at each step; then back
//! again.

use crate::harness::booted::Booted;
use crate::harness::installed::{PASSWORD, SUPERUSER, installed};
use crate::harness::site::{NO_GROUP, as_tablet, wait_until_well};
use crate::harness::tablet::Tablets;
use crate::harness::tier::one_in;
use crate::harness::{kill, wheelhouse};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

const OLD: &str = "2.4.24";
const NEW: &str = "2.4.24+1";
const ORIGIN: &str = "--offline --wheelhouse /srv/both";
const RELEASES: &str = "/usr/share/camcops/releases";
const DUMPS: &str = "/var/backups/camcops";
/// The last migration of both versions: without it a release is one whose tables are older.
const LAST: &str = "lib/python3.11/site-packages/camcops_server/alembic/versions/0087_empsa.py";

#[test]
fn a_site_is_upgraded_and_brought_back() {
    let Some((machine, _)) = installed() else {
        return;
    };
    let start = Instant::now();
    wait_until_well(&machine, "the first boot");
    begin_with_the_old_version(&machine);
    eprintln!("{OLD} after {:.0} s", start.elapsed().as_secs_f64());

    let tablets = Tablets::few(&machine);
    refuses(&machine);
    prunes(&machine);
    fails_before_anything_is_changed(&machine);
    tablets.excuse(|| succeeds_with_the_tables_that_there_are(&machine));
    // Without its last table the old version accepts nothing; they go on as soon as anything does.
    tablets.excuse(|| {
        older_tables(&machine);
        for fails in one_in(2).of(vec![fails_while_the_tables_are_changed, fails_when_the_workers_start]) {
            fails(&machine);
        }
        is_cut(&machine);
    });
    // What they upload after the tables were changed would be given up.
    tablets.end_unnoticed();
    rolls_back(&machine);
    eprintln!("all of it {:.0} s", start.elapsed().as_secs_f64());
}

/// A CamCOPS that came out after this program: tried with a word, known as such, and left again.
#[test]
#[ignore = "thorough: builds a release"]
fn a_version_that_nobody_knows_is_tried() {
    const UNKNOWN: &str = "2.4.99";
    const INDEX: &str = "--set network.pip_index_url=http://127.0.0.1:8500/simple/";
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    std::fs::write(machine.path("/root/make_index.py"), include_str!("harness/make_index.py")).unwrap();
    machine.run(&format!("python3 /root/make_index.py /srv/wheelhouse /srv/index {UNKNOWN}"));
    serve_index(&machine);
    let beside = format!("ls -A {RELEASES} /var/lib/camcops-provision/camcops");
    let before = machine.run(&beside);
    let told = machine.run(&format!("camcops-provision upgrade --check --to {UNKNOWN} --untested {INDEX}"));
    for words in ["camcops-server 2.4.24 -> 2.4.99", "was not tested with CamCOPS 2.4.99", "is known once it is built"]
    {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(machine.run(&beside), before);
    let offline = format!("camcops-provision upgrade --yes --to {UNKNOWN} --untested --offline {INDEX}");
    let (code, _, why) = machine.tried(&offline);
    assert!(code == 69 && why.contains("package index"), "{code} {why}");
    let (code, out, why) = machine.tried(&format!("camcops-provision upgrade --yes --to {UNKNOWN} --untested {INDEX}"));
    assert_eq!(code, 0, "{out}{why}");
    let said = machine.run("camcops-provision run -- --version 2> /dev/null");
    assert_eq!(said.trim(), format!("CamCOPS {UNKNOWN}"));
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
    let told = machine.tried("camcops-provision doctor python").1;
    assert!(told.contains("was not tested with that version of CamCOPS"), "{told}");
    machine.run("camcops-provision rollback --yes");
    let said = machine.run("camcops-provision run -- --version 2> /dev/null");
    assert_eq!(said.trim(), "CamCOPS 2.4.24");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
}

/// What stands in /srv/index, at port 8500.
fn serve_index(machine: &Booted) {
    machine.run(
        "systemd-run --quiet --unit=index python3 -m http.server --bind 127.0.0.1 --directory /srv/index 8500
         timeout 20 bash -c 'until exec 3<> /dev/tcp/127.0.0.1/8500; do sleep 0.2; done 2> /dev/null'",
    );
}

fn begin_with_the_old_version(machine: &Booted) {
    machine.run("mkdir /srv/both; ln -s /srv/wheelhouse/* /srv/both");
    for file in std::fs::read_dir(wheelhouse::other_than_newest(OLD)).unwrap() {
        let file = file.unwrap();
        let to = machine.path("/srv/both").join(file.file_name());
        // What releases are built with may be in the other one's list.
        if std::fs::symlink_metadata(&to).is_err() {
            std::fs::copy(file.path(), to).unwrap();
        }
    }
    machine.run(&format!(
        "camcops-provision config set camcops.version {OLD}
         camcops-provision install --yes {ORIGIN}
         mariadb camcops --execute \"INSERT INTO _security_groups (name, description) VALUES ('ward', 'before')\""
    ));
    is_in_use(machine, OLD);
}

/// Exit code, and what was said.
fn upgrade(machine: &Booted, more: &str) -> (i32, String) {
    let (code, out, why) = machine.tried(&format!("camcops-provision upgrade --yes {ORIGIN} {more} < /dev/null"));
    (code, out + &why)
}

#[track_caller]
fn is_in_use(machine: &Booted, version: &str) {
    let (code, pending, _) = machine.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}");
    let said = machine.run("camcops-provision run -- --version 2> /dev/null");
    assert_eq!(said.trim(), "CamCOPS 2.4.24");
    let current = releases(machine).into_iter().find(|one| one["use"] == "current");
    assert_eq!(current.unwrap()["version"], version);
    let answer = as_tablet(machine, SUPERUSER, PASSWORD);
    assert!(answer.body.contains(NO_GROUP), "{}", answer.body);
    assert_eq!(groups(machine), "ward\n");
    // What keeps an upload from being stored twice takes the place of a name in this version.
    let told = machine.tried("camcops-provision doctor exports").1;
    assert!(told.contains("none pending"), "{told}");
}

fn query(machine: &Booted, query: &str) -> String {
    machine.run(&format!("mariadb --skip-column-names camcops --execute \"{query}\""))
}

fn groups(machine: &Booted) -> String {
    query(machine, "SELECT name FROM _security_groups WHERE name LIKE 'ward%'")
}

fn revision(machine: &Booted) -> String {
    query(machine, "SELECT version_num FROM _alembic_version")
}

fn releases(machine: &Booted) -> Vec<Value> {
    let text = machine.run("camcops-provision --json releases list");
    let told: Value = serde_json::from_str(&text).unwrap();
    told["releases"].as_array().unwrap().clone()
}

/// The release of a version.
fn release(machine: &Booted, version: &str) -> String {
    let all = releases(machine);
    let one = all.iter().find(|one| one["version"] == version).unwrap();
    one["name"].as_str().unwrap().to_owned()
}

fn refuses(machine: &Booted) {
    let (code, said) = upgrade(machine, "--to 2.4.99");
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("2.4.23, 2.4.24"), "{said}");
    let (code, out, _) = machine.tried("camcops-provision upgrade --check --exit-code");
    assert_eq!(code, 2, "{out}");
    assert!(
        out.contains("stay at revision 0087") && out.contains("known flaws in the packages that CamCOPS asks for"),
        "{out}"
    );
    let (code, _, why) = machine.tried("camcops-provision rollback --yes");
    assert_eq!(code, 1, "{why}");
    assert!(why.contains("no rollback possible"), "{why}");
    // What can't be built takes away nothing of what there is.
    let unknown = "--set camcops.version=2.4.99";
    let plan = machine.run(&format!("camcops-provision plan {unknown}"));
    assert!(plan.contains("does not know") && !plan.contains("remove"), "{plan}");
    let (code, _, why) = machine.tried(&format!("camcops-provision install --yes {unknown}"));
    assert!(code == 69 && why.contains("--to 2.4.99 --untested"), "{code} {why}");
    // The index has one that nobody knows here.
    machine.run(
        "mkdir -p /srv/index/simple/camcops-server; cd /srv/index/simple/camcops-server
         touch camcops_server-2.4.24-py3-none-any.whl camcops-server-2.4.99.tar.gz camcops_server-2.4.100b1-py3-none-any.whl",
    );
    serve_index(machine);
    let asked = |more: &str| machine.tried(&format!("camcops-provision upgrade --check {more}")).1;
    let index = "--set network.pip_index_url=http://127.0.0.1:8500/simple/";
    let told = asked(index);
    assert!(told.contains("has CamCOPS 2.4.99, which this camcops-provision does not know"), "{told}");
    let told = asked(&format!("{index} --offline --wheelhouse /srv/both"));
    assert!(told.contains("not checked, because of --offline or network.offline"), "{told}");
    let told = asked("--set network.pip_index_url=http://127.0.0.1:1/simple/");
    assert!(told.contains("could not be queried: [Errno 111] Connection refused"), "{told}");
    machine.run("systemctl stop index");
    let (code, said) = upgrade(machine, "--set camcops.version=2.4.24+1");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("remove it there"), "{said}");
}

fn fails_before_anything_is_changed(machine: &Booted) {
    let before = machine.run("systemctl show --property=MainPID 'camcops-*@camcops.service'");
    let is_as_before = || {
        let now = machine.run("systemctl show --property=MainPID 'camcops-*@camcops.service'");
        assert_eq!(now, before);
        assert_eq!(machine.run("camcops-provision config get camcops.version"), format!("{OLD}\n"));
    };
    machine.run(&format!("mount -t tmpfs -o size=1m small {DUMPS} 2> /dev/null || {{ mkdir -p -m 700 {DUMPS}; mount -t tmpfs -o size=1m small {DUMPS}; }}"));
    let (code, said) = upgrade(machine, "");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the dump of the database needs"), "{said}");
    machine.run(&format!("umount {DUMPS}"));
    is_as_before();

    machine.run("mv /srv/both/camcops_server-2.4.24* /srv");
    let (code, said) = upgrade(machine, "");
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("does not have all of its files"), "{said}");
    machine.run("mv /srv/camcops_server-2.4.24* /srv/both");
    is_as_before();

    killed_at(machine, "compiling");
    is_as_before();
    // The dump can't be made: the new release is there by then.
    machine.run("mkdir /hidden; mv /usr/bin/mariadb-dump /usr/bin/mysqldump /hidden");
    let (code, said) = upgrade(machine, "");
    assert_eq!(code, 69, "{said}");
    machine.run("mv /hidden/* /usr/bin");
    is_as_before();
}

/// Starts an upgrade and kills it as soon as it says this.
fn killed_at(machine: &Booted, words: &str) {
    let mut run = machine
        .command("camcops-provision")
        .args(["upgrade", "--yes"])
        .args(ORIGIN.split(' '))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(run.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.contains(words)).collect();
    assert!(run.try_wait().unwrap().is_none(), "{words:?} is not in {said:#?}");
    kill(&mut run);
}

fn succeeds_with_the_tables_that_there_are(machine: &Booted) {
    let (code, out, why) = machine.tried(&format!("camcops-provision --json upgrade --yes {ORIGIN}"));
    assert_eq!(code, 0, "{why}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["to"]["version"], NEW);
    assert_eq!(told["migrated"], false);
    eprintln!("unanswered for {} ms", told["unanswered_ms"]);
    is_in_use(machine, NEW);
    let (code, said) = upgrade(machine, "");
    assert!(code == 0 && said.contains("nothing to do"), "{said}");
    // What is entered meanwhile stays: the tables are the same.
    query(machine, "INSERT INTO _security_groups (name) VALUES ('ward-2')");
    machine.run("camcops-provision rollback --yes");
    query(machine, "DELETE FROM _security_groups WHERE name = 'ward-2'");
    is_in_use(machine, OLD);
    assert_eq!(machine.run("camcops-provision config get camcops.version"), format!("{OLD}\n"));
}

fn prunes(machine: &Booted) {
    let (old, new) = (release(machine, OLD), release(machine, NEW));
    machine.run(&format!("mkdir {RELEASES}/mine"));
    let uses: Vec<String> =
        releases(machine).iter().map(|one| format!("{} {} {}", one["version"], one["whole"], one["use"])).collect();
    let wanted =
        [format!("\"{OLD}\" true \"current\""), format!("\"{NEW}\" true \"unused\""), "null false \"not_ours\"".into()];
    assert_eq!(uses, wanted);
    let prune = |more: &str| {
        let text = machine.run(&format!("camcops-provision --json releases prune {more}"));
        let told: Value = serde_json::from_str(&text).unwrap();
        assert!(told["left"].as_array().unwrap().is_empty(), "{text}");
        (told["removed"].to_string(), told["bytes"].as_u64().unwrap())
    };
    assert_eq!(prune("--keep 1"), ("[]".into(), 0));
    let (would, bytes) = prune("--dry-run");
    assert_eq!(would, format!("[\"{new}\"]"));
    assert!(bytes > 500 << 20, "{bytes}");
    machine.run(&format!("test -d {RELEASES}/{new}"));
    assert_eq!(prune(""), (would, bytes));
    assert_eq!(prune(""), ("[]".into(), 0));
    machine.run(&format!("rmdir {RELEASES}/mine; test \"$(ls -A {RELEASES})\" = {old}"));
    is_in_use(machine, OLD);
}

/// Makes the old version one whose tables lack what the last migration brings.
fn older_tables(machine: &Booted) {
    let old = release(machine, OLD);
    machine.run(&format!(
        "mv {RELEASES}/{old}/{LAST} /srv
         rm {RELEASES}/{old}/release.files
         mariadb camcops --execute \"DROP TABLE empsa; CREATE VIEW mine AS SELECT name FROM _security_groups; UPDATE _alembic_version SET version_num = '0086'\""
    ));
    is_in_use(machine, OLD);
}

fn fails_while_the_tables_are_changed(machine: &Booted) {
    // Tables with triggers could not be brought back; a view does not matter.
    query(machine, "CREATE TRIGGER seen AFTER INSERT ON patient FOR EACH ROW SET @seen = 1");
    let (code, said) = upgrade(machine, "");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("(trigger seen)"), "{said}");
    query(machine, "DROP TRIGGER seen");
    // The migration meets a table that it wants to make itself.
    query(machine, "CREATE TABLE empsa (a INT); INSERT INTO empsa VALUES (17)");
    let (code, said) = upgrade(machine, "");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("2.4.24 is in use again"), "{said}");
    assert_eq!(query(machine, "SELECT a FROM empsa"), "17\n");
    assert_eq!(revision(machine), "0086\n");
    query(machine, "DROP TABLE empsa");
    is_in_use(machine, OLD);
    assert_eq!(query(machine, "SHOW DATABASES LIKE 'camcops%'"), "camcops\n");
}

/// The tables are changed by then, and the web server runs, but nobody has written anything. The way back is cut, too.
fn fails_when_the_workers_start(machine: &Booted) {
    let celery = format!("{RELEASES}/{}/bin/celery", release(machine, NEW));
    machine.run(&format!(
        "cp {celery} /srv; sed -i '2i raise SystemExit(3)' {celery}; rm {RELEASES}/{}/release.files",
        release(machine, NEW)
    ));
    killed_at(machine, "  loading");
    machine.run(&format!("cp /srv/celery {celery}"));
    let (code, said, why) = machine.tried("camcops-provision install --yes");
    assert_eq!(code, 0, "{said}{why}");
    assert!(why.contains("finishing the interrupted return to CamCOPS 2.4.24"), "{why}");
    assert_eq!(revision(machine), "0086\n");
    is_in_use(machine, OLD);
    assert_eq!(query(machine, "SHOW DATABASES LIKE 'camcops%'"), "camcops\n");
}

fn is_cut(machine: &Booted) {
    // While the tables are changed: the next run goes on, and brings it to its end.
    killed_at(machine, "change /usr/share/camcops/venv");
    let (code, said) = upgrade(machine, "");
    assert_eq!(code, 0, "{said}");
    is_in_use(machine, NEW);
    assert_eq!(revision(machine), "0087\n");
}

fn rolls_back(machine: &Booted) {
    // Somebody logged in since.
    query(machine, "INSERT INTO _security_groups (name) VALUES ('ward-3')");
    let (code, _, why) = machine.tried("camcops-provision rollback --yes");
    assert_eq!(code, 73, "{why}");
    assert!(why.contains("_security_groups"), "{why}");
    let (code, _, why) = machine.tried("camcops-provision rollback --yes --confirm wards");
    assert_eq!(code, 64, "{why}");
    assert_eq!(groups(machine), "ward\nward-3\n");
    // As a cut would have left it that was followed by a boot.
    machine.run(
        "cd /var/lib/camcops-provision/camcops; cp upgrade.json /srv
         sed -i 's/\"done\"/\"switching\"/; /\"sums\": {/,/}/c \"sums\": null' upgrade.json",
    );
    let (code, _, why) = machine.tried("camcops-provision rollback --yes");
    assert_eq!(code, 73, "{why}");
    assert!(why.contains("data may have been entered since"), "{why}");
    machine.run("cp /srv/upgrade.json /var/lib/camcops-provision/camcops");
    machine.run("camcops-provision rollback --yes --confirm camcops");
    is_in_use(machine, OLD);
    assert_eq!(revision(machine), "0086\n");
    let of_the_view = query(machine, "SELECT name FROM mine WHERE name LIKE 'ward%'");
    assert_eq!(of_the_view, "ward\n");
    // What was given up is in a dump.
    let dumps = machine.run(&format!("ls {DUMPS}/*-before-rollback.sql.zst"));
    let has_it = |dump: &str| {
        let file = std::fs::File::open(machine.path(dump)).unwrap();
        String::from_utf8_lossy(&zstd::decode_all(file).unwrap()).contains("ward-3")
    };
    assert!(dumps.lines().any(has_it), "{dumps}");
}
