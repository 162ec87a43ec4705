use super::*;

fn said(text: &str, section: &str, key: &str) -> Said {
    Said { text: text.into(), section: section.into(), key: key.into() }
}

#[test]
fn the_key_is_the_one_that_is_named_or_was_read() {
    let config = Ini::parse("[site]\nSNOMED_TASK_XML_FILENAME = /srv/tasks.xml\n");
    for (text, section, key, expected) in [
        ("Missing parameter FILE_PATIENT_SPEC", "recipient:a", "", ("recipient:a", "FILE_PATIENT_SPEC")),
        ("Missing parameter EMAIL_HOST", "recipient:a", "", ("site", "EMAIL_HOST")),
        ("Task 'x' doesn't exist", "recipient:a", "TASKS", ("recipient:a", "TASKS")),
        ("Bad MFA_METHOD item: 'face'", "site", "MFA_METHODS", ("site", "MFA_METHODS")),
        (
            "Invalid TRUSTED_PROXY_HEADERS value: was 'HTTP_HOST'",
            "server",
            "EXTERNAL_SCRIPT_NAME",
            ("server", "TRUSTED_PROXY_HEADERS"),
        ),
        ("Twilio SMS: missing parameter SID", "site", "SMS_BACKEND", ("sms_backend:twilio", "SID")),
        ("[Errno 2] No such file: '/srv/tasks.xml'", "", "", ("site", "SNOMED_TASK_XML_FILENAME")),
        ("something else", "", "", ("", "")),
    ] {
        let found = key_of(&said(text, section, key), text, &config);
        assert_eq!((found.0.as_str(), found.1.as_str()), expected, "{text}");
    }
}

#[test]
fn no_secret_is_repeated() {
    let config = Ini::parse(
        "[site]\nEMAIL_HOST_PASSWORD = Sesame%%1\nLANGUAGE = en_GB\n[export]\nCELERY_BROKER_URL = amqp://a:opening@b/c\n",
    );
    for (text, expected) in [
        ("what is Sesame%1 in en_GB", "what is ******** in en_GB"),
        ("what is Sesame%%1", "what is ********"),
        ("bad: amqp://a:opening@b/c", "bad: amqp://a:********@b/c"),
        ("bad: redis://x:other@b", "bad: redis://x:********@b"),
    ] {
        assert_eq!(without_secrets(&config, text), expected);
    }
}
