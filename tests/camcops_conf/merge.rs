//! The merge that keeps the administrator's changes, and the mask.

use crate::texts::{any_file, any_key, any_text, good_value};
use camcops_provision::camcops_conf::{Ini, mask_secrets, masked_value, merge_files};
use proptest::prelude::*;

fn values(text: &str) -> Vec<(String, String, String)> {
    let mut entries: Vec<_> =
        Ini::parse(text).entries().into_iter().map(|e| (e.section, e.key.to_lowercase(), e.value)).collect();
    entries.sort();
    entries
}

fn with(text: &str, section: &str, key: &str, value: Option<&str>) -> String {
    let mut file = Ini::parse(text);
    match value {
        Some(value) => file.set(section, key, value).unwrap(),
        None => drop(file.remove(section, key)),
    }
    file.to_string()
}

/// Edits of an administrator or of a new release: a value, or a deletion.
fn edits() -> impl Strategy<Value = Vec<((&'static str, &'static str), Option<String>)>> {
    prop::collection::vec((any_key(), prop::option::of(good_value())), 0..5)
}

proptest! {
    #[test]
    fn merging_again_changes_nothing(ours in any_file(), theirs in any_text(), base in any_text()) {
        for base in [Some(base.as_str()), None] {
            let once = merge_files(&ours, Some(&theirs), base);
            let twice = merge_files(&ours, Some(&once.text), Some(&ours));
            prop_assert_eq!(&twice.text, &once.text);
        }
    }

    #[test]
    fn each_key_follows_the_one_who_changed_it(base in any_file(), mine in edits(), theirs in edits()) {
        let apply = |edits: &Vec<((&str, &str), Option<String>)>| {
            edits.iter().fold(base.clone(), |text, ((section, key), value)| {
                with(&text, section, key, value.as_deref())
            })
        };
        let (ours, file) = (apply(&mine), apply(&theirs));
        let merged = merge_files(&ours, Some(&file), Some(&base));
        let [result, ours, file, base] =
            [&merged.text, &ours, &file, &base].map(|text| Ini::parse(text));
        prop_assert_eq!(result.problems(), vec![]);
        let all = [&ours, &file, &base].map(Ini::entries).concat();
        for entry in all {
            let get = |ini: &Ini| ini.get(&entry.section, &entry.key);
            let changed = get(&file) != get(&base);
            let expected = if changed { get(&file) } else { get(&ours) };
            prop_assert_eq!(get(&result), expected, "[{}] {}", &entry.section, &entry.key);
            let kept = merged.kept.iter().find(|k| {
                k.section == entry.section && k.key.eq_ignore_ascii_case(&entry.key)
            });
            let concerns_us = get(&ours).is_some() || get(&base).is_some();
            let silent = !changed || get(&file) == get(&ours) || !concerns_us;
            prop_assert_eq!(kept.is_none(), silent, "[{}] {}", &entry.section, &entry.key);
            if let Some(kept) = kept {
                prop_assert_eq!(&kept.theirs, &get(&file));
                prop_assert_eq!(&kept.ours, &get(&ours));
            }
        }
    }

    #[test]
    fn without_a_base_nothing_in_the_file_is_changed(ours in any_file(), theirs in any_file()) {
        let merged = merge_files(&ours, Some(&theirs), None);
        let after = values(&merged.text);
        for value in values(&theirs) {
            prop_assert!(after.contains(&value), "{:?}", value);
        }
        let file = Ini::parse(&merged.text);
        for entry in Ini::parse(&ours).entries() {
            prop_assert!(file.get(&entry.section, &entry.key).is_some());
        }
    }

    #[test]
    fn a_masked_text_has_the_same_lines_and_no_planted_secret(
        text in any_text(),
        key in prop::sample::select(vec![
            ("site", "SESSION_COOKIE_SECRET"), ("site", "EMAIL_HOST_PASSWORD"),
            ("recipient:x", "REDCAP_API_KEY"), ("sms_backend:twilio", "TOKEN"),
            ("site", "MY_PASSWORD"), ("other", "secret_of_mine"),
        ]),
        lines in prop::collection::vec("[!-~]{0,3}PLANTED[!-~]{0,3}", 1..4),
    ) {
        let mut file = Ini::parse(&text);
        if file.set(key.0, key.1, &lines.join("\n")).is_ok() {
            let text = file.to_string();
            let shown = mask_secrets(&text);
            prop_assert!(!shown.contains("PLANTED"), "{shown}");
            let ends = |t: &str| Ini::parse(t).to_string().matches(['\n', '\r']).count();
            prop_assert_eq!(ends(&shown), ends(&text));
            prop_assert_eq!(mask_secrets(&shown), shown);
        }
    }

    #[test]
    fn a_password_in_a_url_is_masked(
        user in "[a-z]{1,5}", password in "[ -~]{0,6}PLANTED[ -~]{0,6}", host in "[a-z.]{1,9}",
    ) {
        let url = format!("amqp://{user}:{password}@{host}/v");
        for text in [format!("[export]\nCELERY_BROKER_URL = {url}\n"), format!("# {url}\n"), url] {
            let shown = mask_secrets(&text);
            prop_assert!(!shown.contains("PLANTED"), "{shown}");
            let tail = format!("@{host}/v");
            prop_assert!(shown.contains(&tail), "{shown}");
        }
    }
}

const BASE: &str = "# ours\n[site]\n# about A\nA = 1\n\n# about B\nB = 2\n";

#[test]
fn an_untouched_file_becomes_ours_verbatim() {
    let ours = BASE.replace("B = 2", "B = 3").replace("# ours", "# newer");
    assert_eq!(merge_files(&ours, None, None).text, ours);
    assert_eq!(merge_files(&ours, Some(BASE), Some(BASE)).text, ours);
}

#[test]
fn a_changed_file_keeps_its_looks() {
    let theirs = "[site]\n; mine\nB = 2\n\n    ; hm\nA : one\n[x]\ny = z\n";
    let ours = BASE.replace("B = 2", "B = 3\n\n# about C\nC = 4");
    let merged = merge_files(&ours, Some(theirs), Some(BASE));
    let expected = "[site]\n; mine\nB = 3\n\n    ; hm\nA : one\n\n# about C\nC = 4\n[x]\ny = z\n";
    assert_eq!(merged.text, expected);
    let kept: Vec<_> = merged.kept.iter().map(|k| (k.key.as_str(), k.theirs.as_deref())).collect();
    assert_eq!(kept, [("A", Some("one"))]);
}

#[test]
fn a_key_that_went_out_of_use_goes_with_its_comment() {
    let theirs = BASE.replace("A = 1", "A = one");
    let ours = BASE.replace("# about B\nB = 2\n", "");
    let merged = merge_files(&ours, Some(&theirs), Some(BASE));
    assert_eq!(merged.text, "# ours\n[site]\n# about A\nA = one\n");
}

#[test]
fn secrets_are_masked_and_nothing_else() {
    let text = "\
[site]
DB_URL = mysql+pymysql://u:p@ss/w:rd@h/db?charset=utf8mb4&password=x&a=b
SESSION_COOKIE_SECRET = abc
    def
PASSWORD_CHANGE_FREQUENCY_DAYS = 7
DISABLE_PASSWORD_AUTOCOMPLETE = True
# EMAIL_HOST_PASSWORD = old
EMAIL_HOST_PASSWORD old
EMAIL_HOST_PASWORD = old
PASSWORD old = 1
# The old password was old
# Ask browsers not to remember passwords.
# Days after which users choose a new password; 0 for never.
LOCAL_INSTITUTION_URL = https://h:8443/x
EMAIL_HOST_PASSWORD =
[recipient:x]
FHIR_APP_SECRET: s
GROUPS =
    a
";
    let expected = "\
[site]
DB_URL = mysql+pymysql://u:********@h/db?charset=utf8mb4&password=********&a=b
SESSION_COOKIE_SECRET = ********
    ********
PASSWORD_CHANGE_FREQUENCY_DAYS = 7
DISABLE_PASSWORD_AUTOCOMPLETE = True
# EMAIL_HOST_PASSWORD = ********
EMAIL_HOST_PASSWORD ********
EMAIL_HOST_PASWORD = ********
PASSWORD ********
# The old password ********
# Ask browsers not to remember passwords.
# Days after which users choose a new password; 0 for never.
LOCAL_INSTITUTION_URL = https://h:8443/x
EMAIL_HOST_PASSWORD =
[recipient:x]
FHIR_APP_SECRET: ********
GROUPS =
    a
";
    assert_eq!(mask_secrets(text), expected);
    assert_eq!(masked_value("site", "SESSION_COOKIE_SECRET", "x"), "********");
    assert_eq!(masked_value("site", "DB_URL", "a://u:p@h"), "a://u:********@h");
    assert_eq!(masked_value("site", "LANGUAGE", "en_GB"), "en_GB");
}
