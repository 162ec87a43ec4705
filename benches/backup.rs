//! How fast a backup is made and brought back, as ratios to the bare pipes, on a machine that was just installed and a
//! database of more than 1 GiB: `cargo bench --bench backup`, as root.
//!
//! Each way is taken several times by turns, and the best time of each counts. The restore is of a machine whose database
//! was lost: it has everything that `backup restore` does, from the check of the sums to the login page.

#![allow(clippy::print_stdout)] // printing the figures is what it is for
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../tests/machine/harness/mod.rs"]
mod harness;

use harness::booted::Booted;
use harness::installed::installed;

const RUNS: usize = 3;

/// Many small rows, long texts, and photographs that nothing compresses.
const FILL: &str = r#"
mysql camcops <<'END'
SET foreign_key_checks = 0, sql_mode = '';
INSERT INTO _security_audit (id, when_access_utc, source, details)
    SELECT 10000 + seq, UTC_TIMESTAMP(), 'bench',
        CONCAT('SELECT * FROM patient WHERE forename = "', SHA2(seq, 512), '" AND surname = "', SHA2(seq + 1, 256), '"\n',
            REPEAT('said the patient, and then ', seq % 12))
    FROM seq_1_to_1500000;
INSERT INTO blobs (_pk, id, _device_id, _era, _current, theblob)
    SELECT seq, seq, 1, 'NOW', 1, CONCAT(PHOTOGRAPH) FROM seq_1_to_4000;
INSERT INTO phq9 (_pk, id, patient_id, _device_id, _era, _current, q1, q2, q3, q4, q5, q6, q7, q8, q9, q10)
    SELECT seq, seq, seq % 5000, 1, 'NOW', 1,
        seq % 4, seq % 3, seq % 4, seq % 2, seq % 4, seq % 3, seq % 4, seq % 4, seq % 2, seq % 4
    FROM seq_1_to_1000000;
END
"#;
const SIZE: &str = "mysql --skip-column-names --execute \"SELECT SUM(DATA_LENGTH) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'camcops'\"";
const DUMP: &str = "mariadb-dump --single-transaction --quick --hex-blob camcops \
    | zstd --quiet --force -o /var/backups/bare.sql.zst; sync /var/backups/bare.sql.zst";
const LOAD: &str = "mysql --execute 'CREATE DATABASE bare CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci'; \
    zstd --decompress --stdout --quiet /var/backups/bare.sql.zst | mariadb bare";

fn main() {
    let Some((machine, _)) = installed() else {
        return;
    };
    machine.run("camcops-provision wait --quiet --timeout 300; camcops-provision install --yes --quiet");
    let zstd = machine.path("/usr/bin/zstd");
    std::fs::copy("/usr/bin/zstd", zstd).expect("the bare pipes need zstd; install its package");
    let photograph = vec!["RANDOM_BYTES(1024)"; 100].join(", ");
    machine.run(&FILL.replace("PHOTOGRAPH", &photograph));
    let size = number(&machine.run(SIZE)) / f64::from(1 << 30);
    println!("a database of {size:.2} GiB");
    made(&machine);
    brought_back(&machine);
}

fn number(text: &str) -> f64 {
    let number = text.trim().parse();
    number.unwrap_or_else(|_| panic!("no number: {text}"))
}

fn seconds(machine: &Booted, command: &str) -> f64 {
    let took = machine
        .run(&format!("sync; begin=$(date +%s%N); {{ {command}; }} > /dev/null; echo $(($(date +%s%N) - begin))"));
    number(&took) / 1e9
}

fn told(what: &str, ours: &[f64], bare: &[f64]) {
    let best = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "{what:<12} {:6.1} s against {:6.1} s by the bare pipe: {:.2} times as fast (aim 1.0 or more); all: {ours:.1?} {bare:.1?}",
        best(ours),
        best(bare),
        best(bare) / best(ours)
    );
}

fn made(machine: &Booted) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        machine.run("rm --recursive --force /var/backups/camcops/*");
        bare.push(seconds(machine, DUMP));
        ours.push(seconds(machine, "camcops-provision backup create --quiet"));
    }
    told("a backup", &ours, &bare);
    let size = machine.run("du --bytes --summarize /var/backups/camcops /var/backups/bare.sql.zst");
    println!("    on the disk: {}", size.replace('\n', " "));
}

fn brought_back(machine: &Booted) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        bare.push(seconds(machine, LOAD));
        machine.run("camcops-provision stop --quiet; mysql --execute 'DROP DATABASE bare; DROP DATABASE camcops'");
        ours.push(seconds(machine, "camcops-provision backup restore latest --confirm camcops --quiet"));
    }
    told("a restore", &ours, &bare);
}
