//! Settings that CamCOPS refuses don't take the site down: most of them are refused before anything is changed, and for
//! the others the former file comes back.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::site::{SERVICES, all_were_answered, services, unit, visit, wait_until_well};
use crate::harness::tablet::Tablets;
use serde_json::Value;

const SETTINGS: &str = "/etc/camcops/provision.toml";
const CONFIG: &str = "/etc/camcops/camcops.conf";

/// It lacks three keys, and has a task that CamCOPS does not know.
const LACKING: &str = r#"
[config."recipient:archive"]
TRANSMISSION_METHOD = "file"
ALL_GROUPS = "True"
TASKS = ["phq9", "no_such_task"]
"#;

const WHOLE: &str = r#"
[config."recipient:archive"]
TRANSMISSION_METHOD = "file"
ALL_GROUPS = "True"
PRIMARY_IDNUM = "1"
REQUIRE_PRIMARY_IDNUM_MANDATORY_IN_POLICY = "False"
TASKS = ["phq9", "photo"]
FILE_PATIENT_SPEC = "{surname}"
FILE_FILENAME_SPEC = "/var/lib/camcops/{tasktype}_{serverpk}.{filetype}"
"#;

/// A setting, and what CamCOPS says of it with the key that it names.
const REFUSED: [(&str, &str); 13] = [
    (r#"config.site.MFA_METHODS=["face"]"#, "config.site.MFA_METHODS: CamCOPS says: Bad MFA_METHOD item: 'face'"),
    ("config.site.SMS_BACKEND=pigeon", "config.site.SMS_BACKEND: CamCOPS says: No backend 'pigeon' registered"),
    ("config.site.SMS_BACKEND=twilio", "CamCOPS says: Twilio SMS: missing parameter"),
    (
        "config.site.RESTRICTED_TASKS=phq9",
        "config.site.RESTRICTED_TASKS: CamCOPS says: Restricted tasks line not in the format",
    ),
    ("config.site.SESSION_TIMEOUT_MINUTES=99999999999999", "CamCOPS says: Python int too large"),
    ("config.site.SNOMED_TASK_XML_FILENAME=/etc/passwd", "config.site.SNOMED_TASK_XML_FILENAME: CamCOPS says: "),
    ("config.server.GUNICORN_TIMEOUT_S=-3", "config.server.GUNICORN_TIMEOUT_S: CamCOPS says: Value must be positive"),
    ("config.server.TRUSTED_PROXY_HEADERS=HTTP_X_EVIL", "config.server.TRUSTED_PROXY_HEADERS: CamCOPS says: Invalid"),
    (r#"config.export.SCHEDULE=["0 3 * * * nowhere"]"#, "config.export.SCHEDULE: CamCOPS says: "),
    (
        "config.export.SCHEDULE_TIMEZONE=Mars/Olympus",
        "config.export.SCHEDULE_TIMEZONE: CamCOPS says: there is no such time zone",
    ),
    (
        r#"config.export.CELERY_WORKER_EXTRA_ARGS=["--prefetch-multiplier=1", "--no-such=3"]"#,
        "config.export.CELERY_WORKER_EXTRA_ARGS: CamCOPS says: --no-such=3 is not for Celery's worker: No such option",
    ),
    (
        r#"config.export.CELERY_BEAT_EXTRA_ARGS=["--max-interval=often"]"#,
        "config.export.CELERY_BEAT_EXTRA_ARGS: CamCOPS says: --max-interval=often is not for Celery's beat: Invalid value",
    ),
    (r#"config.export.RECIPIENTS=["nobody"]"#, "config.recipient:nobody"),
];

#[test]
fn refused_settings_take_no_site_down() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    // They bring along the kind of number that recipients need.
    let tablets = Tablets::few(&machine);
    let before = as_it_is(&machine);
    let own = std::fs::read_to_string(machine.path(SETTINGS)).unwrap_or_default();
    let put = |more: &str| {
        std::fs::write(machine.path(SETTINGS), format!("{own}{more}")).unwrap();
    };
    visit(&machine, "refused", "https://machine/");

    put(LACKING);
    is_refused(&machine, "config validate", &["FILE_PATIENT_SPEC"]);
    let all = ["TASKS", "FILE_PATIENT_SPEC", "FILE_FILENAME_SPEC", "PRIMARY_IDNUM"];
    let why = is_refused(&machine, "install --yes", &all);
    assert!(why.contains("Task 'no_such_task' doesn't exist"), "{why}");
    assert_eq!(as_it_is(&machine), before);

    put(&WHOLE.replace("ALL_GROUPS = \"True\"", "GROUPS = [\"no such group\"]"));
    comes_back(&machine, &before);

    put(WHOLE);
    machine.run("camcops-provision install --yes && camcops-provision plan --exit-code");
    knows_the_tasks(&machine);
    tablets.end_unnoticed();
    eprintln!("{} visits", all_were_answered(&machine, "refused"));
}

/// The configuration and the services.
fn as_it_is(machine: &Booted) -> String {
    let units = SERVICES.map(unit).join(" ");
    machine.run(&format!("sha256sum {CONFIG}; systemctl show --property=MainPID {units}"))
}

/// It is refused, with these keys of the recipient; gives what was said.
fn is_refused(machine: &Booted, command: &str, keys: &[&str]) -> String {
    let (code, out, why) = machine.tried(&format!("camcops-provision {command}"));
    assert_eq!(code, 65, "{out}{why}");
    for key in keys {
        let words = format!("config.recipient:archive.{key}: CamCOPS says: ");
        assert!(why.contains(&words), "{key}: {why}");
    }
    why
}

/// Only the database can tell that there is no such group.
fn comes_back(machine: &Booted, before: &str) {
    let (code, out, why) = machine.tried("camcops-provision install --yes");
    eprintln!("{why}");
    assert_eq!(code, 69, "{out}{why}");
    assert!(why.contains("No such group: 'no such group'"), "{why}");
    assert!(why.contains(&format!("the new {CONFIG}")), "{why}");
    let file = |what: &str| what.lines().next().unwrap_or_default().to_owned();
    assert_eq!(file(&as_it_is(machine)), file(before));
    wait_until_well(machine, "a refused start");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 2);
}

/// A recipient has its tasks looked up also where no task is ever run.
fn knows_the_tasks(machine: &Booted) {
    for service in ["scheduler", "monitor"] {
        let restarts = format!("systemctl show --value --property=NRestarts {}", unit(service));
        assert_eq!(machine.run(&restarts).trim(), "0", "{service}");
        assert_eq!(services(machine)[&unit(service)]["answers"], Value::Bool(true));
    }
}

#[test]
#[ignore = "thorough: CamCOPS is asked two dozen times, which takes three minutes"]
fn each_refused_setting_is_named() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let before = as_it_is(&machine);
    visit(&machine, "each", "https://machine/");
    for (setting, words) in REFUSED {
        let set = format!("--set '{setting}'");
        let (code, out, why) = machine.tried(&format!("camcops-provision {set} install --yes"));
        assert_eq!(code, 65, "{setting}: {out}{why}");
        assert!(why.contains(words), "{setting}: {why}");
        let (code, out, why) = machine.tried(&format!("camcops-provision {set} plan"));
        assert_eq!(code, 65, "{setting}: {out}{why}");
        assert!(out.contains(words), "{setting}: {out}{why}");
        assert_eq!(as_it_is(&machine), before, "{setting}");
    }
    by_hand(&machine, &before);
    eprintln!("{} visits", all_were_answered(&machine, "each"));
}

/// What an administrator wrote into the file itself is read before a service has to.
fn by_hand(machine: &Booted, before: &str) {
    machine.run(&format!("cp --preserve=all {CONFIG} /root/kept; sed -i 's/^    no_mfa$/    face/' {CONFIG}"));
    let (code, out, why) = machine.tried("camcops-provision install --yes");
    assert_eq!(code, 65, "{out}{why}");
    let words = format!("{CONFIG} [site] MFA_METHODS: CamCOPS says: ");
    assert!(why.contains(&words), "{why}");
    machine.run(&format!("cp --preserve=all /root/kept {CONFIG}"));
    assert_eq!(as_it_is(machine), before);
}
