use serde::Serialize;

use ConfSection::*;
use ValueKind::*;

/// A section of camcops.conf whose keys are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ConfSection {
    /// `[site]`
    #[serde(rename = "site")]
    Site,
    /// `[server]`
    #[serde(rename = "server")]
    Server,
    /// `[export]`
    #[serde(rename = "export")]
    Export,
    /// `[recipient:NAME]`
    #[serde(rename = "recipient")]
    Recipient,
    /// `[sms_backend:kapow]`
    #[serde(rename = "sms_backend:kapow")]
    Kapow,
    /// `[sms_backend:twilio]`
    #[serde(rename = "sms_backend:twilio")]
    Twilio,
}

/// The headers of those that have only one.
const HEADERS: [(ConfSection, &str); 5] = [
    (Site, "site"),
    (Server, "server"),
    (Export, "export"),
    (Kapow, "sms_backend:kapow"),
    (Twilio, "sms_backend:twilio"),
];

impl ConfSection {
    /// The section that a header in the file means, if CamCOPS reads it at all.
    pub fn of(header: &str) -> Option<Self> {
        let only = HEADERS.iter().find(|(_, known)| *known == header).map(|(section, _)| *section);
        only.or_else(|| header.strip_prefix("recipient:").filter(|name| !name.is_empty()).map(|_| Recipient))
    }

    /// Its header in the file, where it has only one.
    pub(crate) fn header(self) -> Option<&'static str> {
        HEADERS.iter().find(|(section, _)| *section == self).map(|(_, header)| *header)
    }
}

/// How CamCOPS reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ValueKind {
    /// Free text.
    Text,
    /// A file or directory, or a pattern that yields one.
    Path,
    /// A URL, which may hold a password.
    Url,
    /// A whole number; anything else silently becomes the default.
    Int,
    /// True or False; anything else silently becomes the default.
    Bool,
    /// One item per line.
    Lines,
    /// debug, info, warning, error or critical.
    Level,
    /// A name that CamCOPS reserves and never reads.
    Unread,
}

/// A key that CamCOPS 2.4.24 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ConfKey {
    /// Where it stands.
    pub section: ConfSection,
    /// Its name; CamCOPS ignores the case.
    pub name: &'static str,
    /// How it is read.
    pub kind: ValueKind,
    /// What an absent key means; empty if nothing, or if it depends on the machine.
    pub default: &'static str,
    /// CamCOPS does not start without it.
    pub(crate) required: bool,
    /// Never shown.
    pub(crate) secret: bool,
}

impl ConfKey {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

const fn define_key(section: ConfSection, name: &'static str, kind: ValueKind, default: &'static str) -> ConfKey {
    ConfKey { section, name, kind, default, required: false, secret: false }
}

/// The key of that name in the section with that header.
pub fn find_key(header: &str, name: &str) -> Option<&'static ConfKey> {
    let section = ConfSection::of(header)?;
    KEYS.iter().find(|key| key.section == section && key.name.eq_ignore_ascii_case(name))
}

/// The known key most like a name that is not known; the same section goes first.
pub fn nearest_key(header: &str, name: &str) -> Option<&'static ConfKey> {
    let section = ConfSection::of(header);
    let name = name.to_ascii_uppercase();
    KEYS.iter()
        .map(|key| {
            let likeness = strsim::jaro_winkler(key.name, &name);
            let here = if Some(key.section) == section { 0.05 } else { 0.0 };
            (key, likeness + here)
        })
        .filter(|(_, likeness)| *likeness > 0.85)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(key, _)| key)
}

/// Every key, in CamCOPS's own order.
pub static KEYS: &[ConfKey] = &[
    define_key(Site, "ALLOW_INSECURE_COOKIES", Bool, "False"),
    define_key(Site, "CAMCOPS_LOGO_FILE_ABSOLUTE", Path, ""),
    define_key(Site, "CLIENT_API_LOGLEVEL", Level, "info"),
    define_key(Site, "CTV_FILENAME_SPEC", Text, "").required(),
    define_key(Site, "DB_URL", Url, "").required(),
    define_key(Site, "DB_ECHO", Bool, "False"),
    define_key(Site, "DISABLE_PASSWORD_AUTOCOMPLETE", Bool, "True"),
    define_key(Site, "EMAIL_FROM", Text, ""),
    define_key(Site, "EMAIL_HOST", Text, ""),
    define_key(Site, "EMAIL_HOST_PASSWORD", Text, "").secret(),
    define_key(Site, "EMAIL_HOST_PASSWORD_GNU_PASS_LOOKUP", Text, ""),
    define_key(Site, "EMAIL_HOST_USERNAME", Text, ""),
    define_key(Site, "EMAIL_PORT", Int, "587"),
    define_key(Site, "EMAIL_REPLY_TO", Text, ""),
    define_key(Site, "EMAIL_SENDER", Text, ""),
    define_key(Site, "EMAIL_USE_TLS", Bool, "True"),
    define_key(Site, "EXTRA_STRING_FILES", Lines, ""),
    define_key(Site, "LANGUAGE", Text, "en_GB"),
    define_key(Site, "LOCAL_INSTITUTION_URL", Url, "https://camcops.readthedocs.io/"),
    define_key(Site, "LOCAL_LOGO_FILE_ABSOLUTE", Path, ""),
    define_key(Site, "LOCKOUT_DURATION_INCREMENT_MINUTES", Int, "10"),
    define_key(Site, "LOCKOUT_THRESHOLD", Int, "10"),
    define_key(Site, "MFA_METHODS", Lines, "no_mfa"),
    define_key(Site, "MFA_TIMEOUT_S", Int, "600"),
    define_key(Site, "PASSWORD_CHANGE_FREQUENCY_DAYS", Int, "0"),
    define_key(Site, "PATIENT_SPEC", Text, "").required(),
    define_key(Site, "PATIENT_SPEC_IF_ANONYMOUS", Text, "anonymous"),
    define_key(Site, "PERMIT_IMMEDIATE_DOWNLOADS", Bool, "False"),
    define_key(Site, "REGION_CODE", Text, "GB"),
    define_key(Site, "RESTRICTED_TASKS", Lines, ""),
    define_key(Site, "SESSION_COOKIE_SECRET", Text, "").required().secret(),
    define_key(Site, "SESSION_TIMEOUT_MINUTES", Int, "30"),
    define_key(Site, "SESSION_CHECK_USER_IP", Bool, "True"),
    define_key(Site, "SMS_BACKEND", Text, "console"),
    define_key(Site, "SNOMED_TASK_XML_FILENAME", Path, ""),
    define_key(Site, "SNOMED_ICD9_XML_FILENAME", Path, ""),
    define_key(Site, "SNOMED_ICD10_XML_FILENAME", Path, ""),
    define_key(Site, "TASK_FILENAME_SPEC", Text, "").required(),
    define_key(Site, "TRACKER_FILENAME_SPEC", Text, "").required(),
    define_key(Site, "USER_DOWNLOAD_DIR", Path, ""),
    define_key(Site, "USER_DOWNLOAD_FILE_LIFETIME_MIN", Int, "60"),
    define_key(Site, "USER_DOWNLOAD_MAX_SPACE_MB", Int, "100"),
    define_key(Site, "WEBVIEW_LOGLEVEL", Level, "info"),
    define_key(Site, "WKHTMLTOPDF_FILENAME", Path, ""),
    define_key(Server, "CHERRYPY_LOG_SCREEN", Bool, "True"),
    define_key(Server, "CHERRYPY_ROOT_PATH", Text, "/"),
    define_key(Server, "CHERRYPY_SERVER_NAME", Text, "localhost"),
    define_key(Server, "CHERRYPY_THREADS_MAX", Int, "100"),
    define_key(Server, "CHERRYPY_THREADS_START", Int, "10"),
    define_key(Server, "DEBUG_REVERSE_PROXY", Bool, "False"),
    define_key(Server, "DEBUG_SHOW_GUNICORN_OPTIONS", Bool, "False"),
    define_key(Server, "DEBUG_TOOLBAR", Bool, "False"),
    define_key(Server, "EXTERNAL_URL_SCHEME", Text, "https"),
    define_key(Server, "EXTERNAL_SERVER_NAME", Text, ""),
    define_key(Server, "EXTERNAL_SERVER_PORT", Int, ""),
    define_key(Server, "EXTERNAL_SCRIPT_NAME", Text, ""),
    define_key(Server, "GUNICORN_DEBUG_RELOAD", Bool, "False"),
    define_key(Server, "GUNICORN_NUM_WORKERS", Int, ""),
    define_key(Server, "GUNICORN_TIMEOUT_S", Int, "30"),
    define_key(Server, "HOST", Text, "127.0.0.1"),
    define_key(Server, "PORT", Int, "8000"),
    define_key(Server, "PROXY_HTTP_HOST", Text, ""),
    define_key(Server, "PROXY_REMOTE_ADDR", Text, ""),
    define_key(Server, "PROXY_REWRITE_PATH_INFO", Bool, "False"),
    define_key(Server, "PROXY_SCRIPT_NAME", Text, ""),
    define_key(Server, "PROXY_SERVER_NAME", Text, ""),
    define_key(Server, "PROXY_SERVER_PORT", Int, ""),
    define_key(Server, "PROXY_URL_SCHEME", Text, ""),
    define_key(Server, "SHOW_REQUEST_IMMEDIATELY", Bool, "False"),
    define_key(Server, "SHOW_REQUESTS", Bool, "False"),
    define_key(Server, "SHOW_RESPONSE", Bool, "False"),
    define_key(Server, "SHOW_TIMING", Bool, "False"),
    define_key(Server, "SSL_CERTIFICATE", Path, ""),
    define_key(Server, "SSL_PRIVATE_KEY", Path, ""),
    define_key(Server, "STATIC_CACHE_DURATION_S", Int, "86400"),
    define_key(Server, "TRUSTED_PROXY_HEADERS", Lines, ""),
    define_key(Server, "UNIX_DOMAIN_SOCKET", Path, ""),
    define_key(Export, "CELERY_BEAT_EXTRA_ARGS", Lines, ""),
    define_key(Export, "CELERY_BEAT_SCHEDULE_DATABASE", Path, "").required(),
    define_key(Export, "CELERY_BROKER_URL", Url, "amqp://"),
    define_key(Export, "CELERY_WORKER_EXTRA_ARGS", Lines, ""),
    define_key(Export, "CELERY_EXPORT_TASK_RATE_LIMIT", Text, ""),
    define_key(Export, "EXPORT_LOCKDIR", Path, "").required(),
    define_key(Export, "RECIPIENTS", Lines, ""),
    define_key(Export, "SCHEDULE", Lines, ""),
    define_key(Export, "SCHEDULE_TIMEZONE", Text, "UTC"),
    define_key(Recipient, "ALL_GROUPS", Bool, "False"),
    define_key(Recipient, "DB_ADD_SUMMARIES", Bool, "True"),
    define_key(Recipient, "DB_ECHO", Bool, "False"),
    define_key(Recipient, "DB_INCLUDE_BLOBS", Bool, "True"),
    define_key(Recipient, "DB_PATIENT_ID_PER_ROW", Bool, "False"),
    define_key(Recipient, "DB_URL", Url, ""),
    define_key(Recipient, "EMAIL_BCC", Lines, ""),
    define_key(Recipient, "EMAIL_BODY", Text, ""),
    define_key(Recipient, "EMAIL_BODY_IS_HTML", Bool, "False"),
    define_key(Recipient, "EMAIL_CC", Lines, ""),
    define_key(Recipient, "EMAIL_KEEP_MESSAGE", Bool, "False"),
    define_key(Recipient, "EMAIL_RECIPIENTS", Unread, ""),
    define_key(Recipient, "EMAIL_PATIENT_SPEC", Text, ""),
    define_key(Recipient, "EMAIL_PATIENT_SPEC_IF_ANONYMOUS", Text, ""),
    define_key(Recipient, "EMAIL_SUBJECT", Text, ""),
    define_key(Recipient, "EMAIL_TIMEOUT", Unread, ""),
    define_key(Recipient, "EMAIL_TO", Lines, ""),
    define_key(Recipient, "END_DATETIME_UTC", Text, ""),
    define_key(Recipient, "FHIR_API_URL", Url, ""),
    define_key(Recipient, "FHIR_APP_ID", Text, "camcops"),
    define_key(Recipient, "FHIR_APP_SECRET", Text, "").secret(),
    define_key(Recipient, "FHIR_LAUNCH_TOKEN", Text, "").secret(),
    define_key(Recipient, "FHIR_CONCURRENT", Bool, "False"),
    define_key(Recipient, "FILE_EXPORT_RIO_METADATA", Bool, "False"),
    define_key(Recipient, "FILE_FILENAME_SPEC", Path, ""),
    define_key(Recipient, "FILE_MAKE_DIRECTORY", Bool, "False"),
    define_key(Recipient, "FILE_OVERWRITE_FILES", Bool, "False"),
    define_key(Recipient, "FILE_PATIENT_SPEC", Text, ""),
    define_key(Recipient, "FILE_PATIENT_SPEC_IF_ANONYMOUS", Text, "anonymous"),
    define_key(Recipient, "FILE_SCRIPT_AFTER_EXPORT", Path, ""),
    define_key(Recipient, "FINALIZED_ONLY", Bool, "True"),
    define_key(Recipient, "GROUPS", Lines, ""),
    define_key(Recipient, "HL7_DEBUG_DIVERT_TO_FILE", Bool, "False"),
    define_key(Recipient, "HL7_DEBUG_TREAT_DIVERTED_AS_SENT", Bool, "False"),
    define_key(Recipient, "HL7_HOST", Text, ""),
    define_key(Recipient, "HL7_KEEP_MESSAGE", Bool, "False"),
    define_key(Recipient, "HL7_KEEP_REPLY", Bool, "False"),
    define_key(Recipient, "HL7_NETWORK_TIMEOUT_MS", Int, "10000"),
    define_key(Recipient, "HL7_PING_FIRST", Bool, "True"),
    define_key(Recipient, "HL7_PORT", Int, "2575"),
    define_key(Recipient, "INCLUDE_ANONYMOUS", Bool, "False"),
    define_key(Recipient, "PRIMARY_IDNUM", Int, ""),
    define_key(Recipient, "PUSH", Bool, "False"),
    define_key(Recipient, "REDCAP_API_KEY", Text, "").secret(),
    define_key(Recipient, "REDCAP_API_URL", Url, ""),
    define_key(Recipient, "REDCAP_FIELDMAP_FILENAME", Path, ""),
    define_key(Recipient, "REQUIRE_PRIMARY_IDNUM_MANDATORY_IN_POLICY", Bool, "True"),
    define_key(Recipient, "RIO_DOCUMENT_TYPE", Text, ""),
    define_key(Recipient, "RIO_IDNUM", Int, ""),
    define_key(Recipient, "RIO_UPLOADING_USER", Text, ""),
    define_key(Recipient, "START_DATETIME_UTC", Text, ""),
    define_key(Recipient, "TASK_FORMAT", Text, "pdf"),
    define_key(Recipient, "TASKS", Lines, ""),
    define_key(Recipient, "TRANSMISSION_METHOD", Text, "").required(),
    define_key(Recipient, "XML_FIELD_COMMENTS", Bool, "True"),
    define_key(Kapow, "USERNAME", Text, "").required(),
    define_key(Kapow, "PASSWORD", Text, "").required().secret(),
    define_key(Twilio, "SID", Text, "").required(),
    define_key(Twilio, "TOKEN", Text, "").required().secret(),
    define_key(Twilio, "FROM_PHONE_NUMBER", Text, "").required(),
];
