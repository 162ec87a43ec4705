//! Backups of a site that runs: made, checked, brought back, on the same machine and on one where there is nothing.

use crate::harness::booted::Booted;
use crate::harness::hostile::{make_hostile, rights};
use crate::harness::installed::{PASSWORD, SUPERUSER, bare, installed};
use crate::harness::kill;
use crate::harness::site::{NO_GROUP, as_tablet, wait_until_well};
use crate::harness::tablet::Tablets;
use crate::harness::tier::{is_thorough, one_in};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DIRECTORY: &str = "/var/backups/camcops";
const RESTORE: &str = "camcops-provision backup restore latest --confirm camcops";

/// Rows whose text looks like a dump, and bytes that are no text.
pub const ROWS: &str = r#"
mysql camcops <<'END'
SET foreign_key_checks = 0;
INSERT INTO _security_audit (id, when_access_utc, source, details)
    SELECT 1000 + seq, UTC_TIMESTAMP(), 'test', CONCAT('it''s (', seq, '), (\n\\ ''); INSERT INTO `x` VALUES (1);', MD5(seq)) FROM seq_1_to_5000;
END
"#;

/// A table without its `CHECKSUM TABLE` is one that the site itself writes to while it runs.
const CHECKSUMS: &str = r#"
mysql --skip-column-names --raw information_schema --execute "SELECT CONCAT('CHECKSUM TABLE ', GROUP_CONCAT('camcops.\`', REPLACE(TABLE_NAME, '\`', '\`\`'), '\`' SEPARATOR ', ')) FROM TABLES WHERE TABLE_SCHEMA = 'camcops' AND TABLE_NAME NOT IN ('_security_webviewer_sessions', '_server_settings')" \
    --init-command 'SET SESSION group_concat_max_len = 1000000' > /root/checksums.sql
mysql --skip-column-names < /root/checksums.sql
"#;

/// What makes the tables, with their keys.
const STRUCTURE: &str = "mariadb-dump --no-data --skip-comments camcops | sed 's/ AUTO_INCREMENT=[0-9]*//'";

/// Flips one bit at each of so many places of a backup, and sees whether it is refused.
const FLIPS: &str = r#"
import os, random, subprocess, sys
home, number = sys.argv[1], int(sys.argv[2])
random.seed(20261121)
files = sorted(os.listdir(home))
sizes = [os.path.getsize(f"{home}/{name}") for name in files]
for n in range(number):
    # Each file has its turn: the small ones would hardly ever be hit.
    name = files[n % len(files)] if n < number // 2 else random.choices(files, sizes)[0]
    at, bit = random.randrange(os.path.getsize(f"{home}/{name}")), 1 << random.randrange(8)
    def flip():
        with open(f"{home}/{name}", "r+b") as file:
            file.seek(at); byte = file.read(1)[0]
            file.seek(at); file.write(bytes([byte ^ bit]))
    flip()
    ran = subprocess.run(["camcops-provision", "backup", "restore", home, "--confirm", "camcops"], capture_output=True, text=True)
    flip()
    assert ran.returncode == 65 and "nothing was changed" in ran.stderr, (name, at, bit, ran)
print("refused", number)
"#;

fn told(machine: &Booted, command: &str) -> Value {
    serde_json::from_str(&machine.run(&format!("camcops-provision --json {command}"))).unwrap()
}

pub fn checksums(machine: &Booted) -> BTreeSet<String> {
    let all: BTreeSet<String> = machine.run(CHECKSUMS).lines().map(str::to_owned).collect();
    assert!(all.len() > 100, "{}", all.len());
    all
}

/// Refused with this code and these words, in one line.
fn refused(machine: &Booted, command: &str, code: i32, words: &str) {
    let (found, _, why) = machine.tried(command);
    let errors: Vec<&str> = why.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((found, errors.len()), (code, 1), "{command}: {why}");
    assert!(errors[0].contains(words), "{command}: {why}");
}

fn databases(machine: &Booted) -> String {
    machine.run("mysql --skip-column-names --execute \"SHOW DATABASES LIKE 'camcops%'; SELECT User FROM mysql.user WHERE User LIKE 'camcops%'\" | tr '\\n' ' '")
}

const ONLY_OURS: &str = "camcops camcops ";

#[test]
fn a_site_is_backed_up_and_brought_back() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    machine.run(ROWS);
    let allowed = make_hostile(&machine);
    machine.run("camcops-provision --quiet stop");
    let before = checksums(&machine);
    let structure = machine.run(STRUCTURE);
    makes_one(&machine);
    is_refused_when_damaged(&machine);
    refuses_what_it_can_not_bring_back(&machine);
    tells_when_it_fails(&machine);
    clears_away(&machine);

    machine.run("mysql camcops --execute 'DELETE FROM _security_audit WHERE id > 1000; DROP TABLE phq9'");
    let harmed = checksums(&machine);
    is_killed(&machine, &harmed, &before);
    let oldest = format!("{DIRECTORY}/$(ls {DIRECTORY} | head -n 1)");
    machine.run(&format!("camcops-provision backup restore {oldest} --confirm camcops"));
    wait_until_well(&machine, "a restore");
    // The newest one holds what was replaced, and is not what anybody means by the latest.
    let all = told(&machine, "backup list")["backups"].clone();
    let newest = all.as_array().unwrap().last().unwrap();
    assert_eq!(newest["before"], "a restore", "{all}");
    assert_ne!(told(&machine, "backup verify --quick")["path"], newest["path"]);
    machine.run("camcops-provision --quiet stop");
    assert_eq!(checksums(&machine), before);
    assert!(machine.run(STRUCTURE) == structure, "the tables are others");
    let has_keys = structure.contains("KEY `ix__security_audit_");
    assert!(has_keys, "{structure}");
    assert_eq!(databases(&machine), ONLY_OURS);
    assert_eq!(rights(&machine), allowed);
    takes_dumps_of_others(&machine);
    refuses_a_hostile_archive(&machine);
    assert_eq!(rights(&machine), allowed);
    is_for_one_reader(&machine);
    comes_back_on_a_bare_machine(&machine, &before);
}

fn makes_one(machine: &Booted) {
    // What an administrator has put beside the tables is named, and left where it is.
    machine.run(
        "mysql camcops --execute 'CREATE VIEW mine AS SELECT COUNT(*) AS n FROM phq9; CREATE TRIGGER seen AFTER INSERT ON phq9 FOR EACH ROW SET @seen = 1'",
    );
    let made = told(machine, "backup create");
    assert!(made["rows"].as_u64().unwrap() > 5000, "{made}");
    assert_eq!(made["left_out"], json!(["view mine", "trigger seen"]));
    machine.run(&format!(
        "cd {DIRECTORY}/*Z
         sha256sum --check --quiet --strict SHA256SUMS
         test \"$(stat --format=%a:%U . .. * | sort -u | tr '\\n' ' ')\" = '600:root 700:root '
         ! grep --recursive --file /etc/camcops/secrets/camcops/cookie --file /etc/camcops/secrets/camcops/database . "
    ));
    let listed = told(machine, "backup list");
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["backups"][0]["what"], "backup");
    assert_eq!(listed["backups"][0]["revision"], "0087");
    let verified = machine.run("camcops-provision backup verify");
    assert!(verified.contains("can be restored: "), "{verified}");
    machine.run("camcops-provision backup verify --quick latest");
    assert_eq!(databases(machine), ONLY_OURS);
    refused(machine, RESTORE, 73, "(trigger seen)");
    machine.run("mysql camcops --execute 'DROP TRIGGER seen; DROP VIEW mine'");

    // In its sandbox, as the timer does it.
    machine.run("systemctl start camcops-backup@camcops.service; systemctl is-active camcops-backup@camcops.timer");
    let status = told(machine, "status");
    assert_eq!(status["backups"]["number"], 2, "{status}");
    assert!(status["backups"]["last_failure"].is_null());
}

fn is_refused_when_damaged(machine: &Booted) {
    let flips = if is_thorough() { 200 } else { 50 };
    std::fs::write(machine.path("/root/flips.py"), FLIPS).unwrap();
    let start = Instant::now();
    let said = machine.run(&format!("python3 /root/flips.py {DIRECTORY}/$(ls {DIRECTORY} | head -n 1) {flips}"));
    assert_eq!(said, format!("refused {flips}\n"));
    eprintln!("{flips} flips in {:.0} s", start.elapsed().as_secs_f64());
    for file in ["SHA256SUMS", "manifest.json", "database.sql.zst", "files.tar.zst"] {
        machine.run(&format!("mv {DIRECTORY}/$(ls {DIRECTORY} | tail -n 1)/{file} /root/"));
        refused(machine, RESTORE, 65, file);
        machine.run(&format!("mv /root/{file} {DIRECTORY}/$(ls {DIRECTORY} | tail -n 1)/"));
    }
    assert_eq!(databases(machine), ONLY_OURS);
}

fn refuses_what_it_can_not_bring_back(machine: &Booted) {
    let restore = "camcops-provision backup restore latest";
    refused(machine, restore, 64, "--confirm camcops");
    refused(machine, &format!("{restore} --confirm camcop"), 64, "is camcops");
    refused(machine, "camcops-provision backup restore nothing --confirm camcops", 65, "there is no backup");
    machine.run(&format!(
        "cp --recursive {DIRECTORY}/$(ls {DIRECTORY} | head -n 1) /root/newer
         cd /root/newer
         sed -i 's/\"revision\": \"0087\"/\"revision\": \"0099\"/' manifest.json
         sha256sum database.sql.zst files.tar.zst manifest.json > SHA256SUMS"
    ));
    refused(
        machine,
        "camcops-provision backup restore /root/newer --confirm camcops",
        65,
        "at revision 0099, which the installed release does not know",
    );
    machine.run("sed -i 's/\"format\": 1/\"format\": 2/' /root/newer/manifest.json; cd /root/newer; sha256sum database.sql.zst files.tar.zst manifest.json > SHA256SUMS");
    refused(
        machine,
        "camcops-provision backup restore /root/newer --confirm camcops",
        65,
        "a newer version of camcops-provision wrote it",
    );
}

fn tells_when_it_fails(machine: &Booted) {
    let create = "camcops-provision backup create";
    machine.run("mkdir /mnt/small; mount -t tmpfs -o size=1M,mode=700 tmpfs /mnt/small");
    let small = "--set backup.directory=/mnt/small";
    refused(machine, &format!("{create} {small}"), 74, "free some space there");
    assert_eq!(machine.run("ls -A /mnt/small"), "");
    machine.run("umount /mnt/small");
    let failure = told(machine, "status")["backups"]["last_failure"]["why"].to_string();
    assert!(failure.contains("free some space"), "{failure}");
    is_made_without_a_journal(machine);
    machine.run("systemctl stop mariadb");
    refused(machine, create, 69, "database");
    // A restore would start it.
    machine.run("systemctl mask --quiet --runtime mariadb");
    refused(machine, RESTORE, 73, "mariadb.service is masked");
    machine.run("systemctl unmask --quiet --runtime mariadb; systemctl start mariadb");
    let told = machine.run("camcops-provision status");
    assert!(told.contains("the last attempt failed at"), "{told}");
    machine.run("echo /mnt/gone/backups > /var/lib/camcops-provision/camcops/backups-in");
    let gone = "--set backup.directory=/mnt/gone/backups";
    refused(machine, &format!("{create} {gone}"), 74, "had backups, but is missing now");
    machine.run("test ! -e /mnt/gone; chmod 777 /mnt/small");
    refused(machine, &format!("{create} {small}"), 73, "accounts other than root");
}

/// A journal that can't be read is in the way of changes, and not of the patients' data.
fn is_made_without_a_journal(machine: &Booted) {
    let journal = "/var/lib/camcops-provision/camcops/journal";
    machine.run(&format!("cp --archive {journal} /root/journal; sed -i '3s/^/damaged/' {journal}"));
    refused(machine, "camcops-provision plan", 65, "can't use");
    let (code, out, why) = machine.tried("camcops-provision backup create");
    assert_eq!(code, 0, "{out}{why}");
    assert!(why.contains("the backup is made nevertheless"), "{why}");
    machine.run(&format!(
        "cp --archive /root/journal {journal}; camcops-provision backup verify --quick; rm --recursive {DIRECTORY}/$(ls {DIRECTORY} | tail -n 1)"
    ));
}

fn clears_away(machine: &Booted) {
    machine.run(&format!(
        "cd {DIRECTORY}; one=$(ls | head -n 1)
         for day in 20200101 20200102 20200201; do cp --recursive $one camcops-${{day}}T020000Z; done
         mkdir camcops-20200301T020000Z.unfinished"
    ));
    let would = machine.run("camcops-provision backup prune --rule first-of-month --dry-run");
    assert!(would.contains("would remove camcops-20200102T020000Z"), "{would}");
    assert!(!would.contains("20200101"), "{would}");
    let gone = told(machine, "backup prune --rule first-of-month");
    assert_eq!(gone["removed"].as_array().unwrap().len(), 2, "{gone}");
    let left = machine.run(&format!("rm --recursive {DIRECTORY}/camcops-2020*; ls {DIRECTORY}"));
    assert_eq!(left.lines().count(), 2, "{left}");
}

/// Killed before the tables change places, the database is what it was; killed while they do, it is one or the other.
fn is_killed(machine: &Booted, harmed: &BTreeSet<String>, before: &BTreeSet<String>) {
    let moments = [("loading", 300), ("stopping", 0), ("backing up", 0)];
    let later = [200, 350, 500, 650].map(|after| ("backing up", after));
    for (moment, after) in one_in(3).of(moments.into_iter().chain(later).collect()) {
        let said = std::fs::File::create(machine.path("/root/said")).unwrap();
        let mut run = machine
            .command("camcops-provision")
            .args(["backup", "restore", "latest", "--confirm", "camcops"])
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        let start = Instant::now();
        let said = || std::fs::read_to_string(machine.path("/root/said")).unwrap();
        while !said().contains(moment) {
            assert!(start.elapsed() < Duration::from_secs(120), "{}", said());
            assert!(run.try_wait().unwrap().is_none(), "{}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(after));
        kill(&mut run);
        // The server brings to its end what it was asked for.
        machine.run("until [ -z \"$(mysql --skip-column-names --execute \"SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'RENAME TABLE %'\")\" ]; do sleep 0.1; done");
        let now = checksums(machine);
        let is_old = now == *harmed;
        eprintln!("killed {after} ms after {moment:?}: the old one is there: {is_old}");
        let may_be_new = moment == "backing up" && after > 0 && now == *before;
        assert!(is_old || may_be_new, "killed {after} ms after {moment:?}");
    }
}

fn takes_dumps_of_others(machine: &Booted) {
    machine.run(
        "mysql --execute 'CREATE DATABASE other; CREATE TABLE other.kept (x INT)'
         mariadb-dump camcops | gzip > /root/foreign.sql.gz
         zcat /root/foreign.sql.gz | head -c 500000 | gzip > /root/cut.sql.gz
         head -c 100000 /root/foreign.sql.gz > /root/broken.sql.gz
         { zcat /root/foreign.sql.gz | head -n 30; echo 'DROP TABLE `other`.`kept`;'; } > /root/greedy.sql
         echo 'CREATE TABLE `x` (y INT);' > /root/strange.sql
         echo '\\! touch /root/owned' > /root/command.sql
         echo 'CREATE SQL SECURITY INVOKER VIEW `_alembic_version` AS SELECT \"0087\" AS version_num;' > /root/view.sql
         echo 'CREATE FUNCTION pwn() RETURNS INT SQL SECURITY INVOKER RETURN 1;' > /root/function.sql",
    );
    for (file, words) in [
        ("cut.sql.gz", "nothing was changed"),
        ("broken.sql.gz", "nothing was changed"),
        ("greedy.sql", "contains more than one database"),
        ("view.sql", "contains more than one database"),
        ("function.sql", "contains more than one database"),
        ("strange.sql", "has no tables of CamCOPS"),
        ("command.sql", "can't be loaded"),
    ] {
        let command = format!("camcops-provision backup restore /root/{file} --confirm camcops");
        refused(machine, &command, 65, words);
    }
    assert_eq!(databases(machine), ONLY_OURS);
    machine.run("test ! -e /root/owned; mysql --execute 'SELECT * FROM other.kept'");
    let packed = told(machine, "backup create --out /root/own.sql.zst");
    assert_eq!(packed["encrypted"], false, "{packed}");
    assert_eq!(machine.run("od -An -tx1 -N4 /root/own.sql.zst").trim(), "28 b5 2f fd");
    for (end, read) in [("sql", "cat"), ("sql.gz", "zcat")] {
        told(machine, &format!("backup create --out /root/own.{end}"));
        let last = machine.run(&format!("{read} /root/own.{end} | tail -n 1; stat --format %a /root/own.{end}"));
        assert!(last.starts_with("-- Dump completed on") && last.ends_with("\n600\n"), "{last}");
    }
    refused(machine, "camcops-provision backup create --out /root/own.sql", 73, "it exists already");
    machine.run("mysql camcops --execute 'DELETE FROM _security_audit WHERE id > 1000'");
    machine.run("camcops-provision backup restore /root/foreign.sql.gz --confirm camcops");
    let rows = machine
        .run("mysql --skip-column-names camcops --execute 'SELECT COUNT(*) FROM _security_audit WHERE id > 1000'");
    assert_eq!(rows, "5000\n");
}

/// A backup with a link and something behind it, by somebody who can write one.
fn refuses_a_hostile_archive(machine: &Booted) {
    let mut archive = tar::Builder::new(Vec::new());
    let whole = || {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    let mut header = whole();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, "opt/x", "/etc").unwrap();
    let line = "* * * * * root touch /root/owned\n".as_bytes();
    header = whole();
    header.set_size(line.len() as u64);
    archive.append_data(&mut header, "opt/x/cron.d/pwn", line).unwrap();
    let packed = zstd::encode_all(&archive.into_inner().unwrap()[..], 1).unwrap();
    machine.run(&format!("cp --recursive {DIRECTORY}/$(ls {DIRECTORY} | head -n 1) /root/hostile"));
    std::fs::write(machine.path("/root/hostile/files.tar.zst"), packed).unwrap();
    let kept = format!("ls {DIRECTORY}");
    let before = machine
        .run(&format!("cd /root/hostile; sha256sum database.sql.zst files.tar.zst manifest.json > SHA256SUMS; {kept}"));
    let start = machine.run("systemctl show --property=ExecMainPID camcops-server@camcops.service");
    refused(
        machine,
        "camcops-provision backup restore /root/hostile --with-configuration --confirm camcops",
        65,
        "a file or a symbolic link where its directory should be",
    );
    machine.run("test ! -e /etc/cron.d/pwn; test ! -e /opt/x");
    assert_eq!(machine.run(&kept), before);
    assert_eq!(machine.run("systemctl show --property=ExecMainPID camcops-server@camcops.service"), start);
}

fn is_for_one_reader(machine: &Booted) {
    let tablets = Tablets::few(machine);
    refused(
        machine,
        "camcops-provision config set backup.encrypt_to age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8q",
        78,
        "is not a recipient of age",
    );
    // Some recipient, to get the program; then one whose identity is known.
    machine.run(
        "camcops-provision config set backup.encrypt_to age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
         camcops-provision --quiet install --yes
         age-keygen --output /root/reader 2> /dev/null
         age-keygen --output /root/stranger 2> /dev/null
         camcops-provision config set backup.encrypt_to $(age-keygen -y /root/reader)
         camcops-provision --quiet install --yes",
    );
    let rows =
        "mysql --skip-column-names camcops --execute \"SELECT COUNT(*) FROM _security_audit WHERE source = 'test'\"";
    let before = machine.run(rows);
    assert_eq!(before, "5000\n");
    machine.run("systemctl start camcops-backup@camcops.service");
    let made = machine.run(&format!(
        "cd {DIRECTORY}/$(ls {DIRECTORY} | tail -n 1)
         ls
         for file in *.age; do head -c 21 $file; done"
    ));
    let names = ["SHA256SUMS", "database.sql.zst.age", "files.tar.zst.age", "manifest.json"];
    let begin = "age-encryption.org/v1".repeat(2);
    assert_eq!(made, format!("{}\n{begin}", names.join("\n")));
    machine.run("camcops-provision backup verify --quick");
    refused(machine, "camcops-provision backup verify", 64, "--identity FILE");
    refused(machine, RESTORE, 64, "--identity FILE");
    let by_stranger = "camcops-provision backup verify --identity /root/stranger";
    refused(machine, by_stranger, 65, "can't be decrypted");
    // What they upload from here on the restore takes away.
    tablets.end_unnoticed();
    machine.run(
        "camcops-provision backup verify --identity /root/reader
         mysql camcops --execute 'DELETE FROM _security_audit WHERE id > 1000'",
    );
    machine.run(&format!("{RESTORE} --identity /root/reader"));
    assert_eq!(machine.run(rows), before);
    assert_eq!(databases(machine), ONLY_OURS);
    // Who encrypts has more to say than the disk has room for.
    machine.run(
        "mkdir /root/endless; printf '#!/bin/sh\\nexec yes\\n' > /root/endless/age; chmod 755 /root/endless/age
         mount -t tmpfs -o size=32M,mode=700 tmpfs /mnt/small",
    );
    refused(
        machine,
        "PATH=/root/endless:$PATH camcops-provision backup create --set backup.directory=/mnt/small",
        74,
        "No space left",
    );
    assert_eq!(machine.run("ls -A /mnt/small"), "");
    machine.run("umount /mnt/small; camcops-provision config unset backup.encrypt_to");
}

/// What a machine had, on one that has nothing.
fn comes_back_on_a_bare_machine(machine: &Booted, before: &BTreeSet<String>) {
    let Some(other) = bare() else { return };
    other.run(&format!("mkdir --parents {DIRECTORY}; chmod 700 {DIRECTORY}"));
    let oldest = machine.run(&format!("ls {DIRECTORY} | head -n 1"));
    let oldest = oldest.trim();
    let [from, to] = [machine, &other].map(|machine| machine.path(DIRECTORY));
    copied(&from.join(oldest), &to);
    let cookie = "cat /etc/camcops/secrets/camcops/cookie";
    let restore = format!("{RESTORE} --set camcops.source=wheelhouse --set camcops.wheelhouse=/srv/wheelhouse");
    other.run("mkdir --parents /etc/camcops; echo mine > /etc/camcops/camcops.conf");
    refused(&other, &restore, 73, "/etc/camcops/camcops.conf");
    other.run("rm /etc/camcops/camcops.conf");
    let said = other.run(&format!("{restore} 2>&1"));
    assert!(!said.contains(PASSWORD) && !said.contains(other.run(cookie).trim()), "{said}");
    wait_until_well(&other, "a restore from nothing");
    assert_eq!(other.run(cookie), machine.run(cookie));
    other.run("apt-get install --quiet --yes --no-install-recommends curl > /dev/null");
    other.run("camcops-provision --quiet stop");
    assert_eq!(checksums(&other), *before);
    other.run("camcops-provision --quiet start");
    let told = as_tablet(&other, SUPERUSER, PASSWORD).body;
    assert!(told.contains(NO_GROUP), "{told}");
    let (code, pending, _) = other.tried(
        "camcops-provision plan --exit-code --set camcops.source=wheelhouse --set camcops.wheelhouse=/srv/wheelhouse",
    );
    assert_eq!(code, 0, "{pending}");
}

fn copied(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("--archive").args([from, to]).status();
    assert!(done.unwrap().success());
}
