use serde::Serialize;

use Kind::*;
use Section::*;

/// A section of camcops.conf whose keys are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Section {
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

impl Section {
    /// The section that a header in the file means, if CamCOPS reads it at all.
    pub fn of(header: &str) -> Option<Self> {
        match header {
            "site" => Some(Site),
            "server" => Some(Server),
            "export" => Some(Export),
            "sms_backend:kapow" => Some(Kapow),
            "sms_backend:twilio" => Some(Twilio),
            _ => header
                .strip_prefix("recipient:")
                .filter(|name| !name.is_empty())
                .map(|_| Recipient),
        }
    }
}

impl Section {
    /// Its header in the file, where it has only one.
    pub(crate) fn header(self) -> Option<&'static str> {
        Some(match self {
            Site => "site",
            Server => "server",
            Export => "export",
            Recipient => return None,
            Kapow => "sms_backend:kapow",
            Twilio => "sms_backend:twilio",
        })
    }
}

/// How CamCOPS reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
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
    pub section: Section,
    /// Its name; CamCOPS ignores the case.
    pub name: &'static str,
    /// How it is read.
    pub kind: Kind,
    /// What an absent key means; empty if nothing, or if it depends on the machine.
    pub default: &'static str,
    /// CamCOPS does not start without it.
    pub(crate) required: bool,
    /// Never shown.
    pub(crate) secret: bool,
}

impl ConfKey {
    const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    const fn secret(self) -> Self {
        Self {
            secret: true,
            ..self
        }
    }
}

const fn key(section: Section, name: &'static str, kind: Kind, default: &'static str) -> ConfKey {
    ConfKey {
        section,
        name,
        kind,
        default,
        required: false,
        secret: false,
    }
}

/// The key of that name in the section with that header.
pub fn find(header: &str, name: &str) -> Option<&'static ConfKey> {
    let section = Section::of(header)?;
    KEYS.iter()
        .find(|key| key.section == section && key.name.eq_ignore_ascii_case(name))
}

/// The known key most like a name that is not known; the same section goes first.
pub fn nearest(header: &str, name: &str) -> Option<&'static ConfKey> {
    let section = Section::of(header);
    let name = name.to_ascii_uppercase();
    KEYS.iter()
        .map(|key| {
            let likeness = strsim::jaro_winkler(key.name, &name);
            let here = if Some(key.section) == section {
                0.05
            } else {
                0.0
            };
            (key, likeness + here)
        })
        .filter(|(_, likeness)| *likeness > 0.85)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(key, _)| key)
}

/// Every key, in CamCOPS's own order.
pub static KEYS: &[ConfKey] = &[
    key(Site, "ALLOW_INSECURE_COOKIES", Bool, "False"),
    key(Site, "CAMCOPS_LOGO_FILE_ABSOLUTE", Path, ""),
    key(Site, "CLIENT_API_LOGLEVEL", Level, "info"),
    key(Site, "CTV_FILENAME_SPEC", Text, "").required(),
    key(Site, "DB_URL", Url, "").required(),
    key(Site, "DB_ECHO", Bool, "False"),
    key(Site, "DISABLE_PASSWORD_AUTOCOMPLETE", Bool, "True"),
    key(Site, "EMAIL_FROM", Text, ""),
    key(Site, "EMAIL_HOST", Text, ""),
    key(Site, "EMAIL_HOST_PASSWORD", Text, "").secret(),
    key(Site, "EMAIL_HOST_PASSWORD_GNU_PASS_LOOKUP", Text, ""),
    key(Site, "EMAIL_HOST_USERNAME", Text, ""),
    key(Site, "EMAIL_PORT", Int, "587"),
    key(Site, "EMAIL_REPLY_TO", Text, ""),
    key(Site, "EMAIL_SENDER", Text, ""),
    key(Site, "EMAIL_USE_TLS", Bool, "True"),
    key(Site, "EXTRA_STRING_FILES", Lines, ""),
    key(Site, "LANGUAGE", Text, "en_GB"),
    key(
        Site,
        "LOCAL_INSTITUTION_URL",
        Url,
        "https://camcops.readthedocs.io/",
    ),
    key(Site, "LOCAL_LOGO_FILE_ABSOLUTE", Path, ""),
    key(Site, "LOCKOUT_DURATION_INCREMENT_MINUTES", Int, "10"),
    key(Site, "LOCKOUT_THRESHOLD", Int, "10"),
    key(Site, "MFA_METHODS", Lines, "no_mfa"),
    key(Site, "MFA_TIMEOUT_S", Int, "600"),
    key(Site, "PASSWORD_CHANGE_FREQUENCY_DAYS", Int, "0"),
    key(Site, "PATIENT_SPEC", Text, "").required(),
    key(Site, "PATIENT_SPEC_IF_ANONYMOUS", Text, "anonymous"),
    key(Site, "PERMIT_IMMEDIATE_DOWNLOADS", Bool, "False"),
    key(Site, "REGION_CODE", Text, "GB"),
    key(Site, "RESTRICTED_TASKS", Lines, ""),
    key(Site, "SESSION_COOKIE_SECRET", Text, "")
        .required()
        .secret(),
    key(Site, "SESSION_TIMEOUT_MINUTES", Int, "30"),
    key(Site, "SESSION_CHECK_USER_IP", Bool, "True"),
    key(Site, "SMS_BACKEND", Text, "console"),
    key(Site, "SNOMED_TASK_XML_FILENAME", Path, ""),
    key(Site, "SNOMED_ICD9_XML_FILENAME", Path, ""),
    key(Site, "SNOMED_ICD10_XML_FILENAME", Path, ""),
    key(Site, "TASK_FILENAME_SPEC", Text, "").required(),
    key(Site, "TRACKER_FILENAME_SPEC", Text, "").required(),
    key(Site, "USER_DOWNLOAD_DIR", Path, ""),
    key(Site, "USER_DOWNLOAD_FILE_LIFETIME_MIN", Int, "60"),
    key(Site, "USER_DOWNLOAD_MAX_SPACE_MB", Int, "100"),
    key(Site, "WEBVIEW_LOGLEVEL", Level, "info"),
    key(Site, "WKHTMLTOPDF_FILENAME", Path, ""),
    key(Server, "CHERRYPY_LOG_SCREEN", Bool, "True"),
    key(Server, "CHERRYPY_ROOT_PATH", Text, "/"),
    key(Server, "CHERRYPY_SERVER_NAME", Text, "localhost"),
    key(Server, "CHERRYPY_THREADS_MAX", Int, "100"),
    key(Server, "CHERRYPY_THREADS_START", Int, "10"),
    key(Server, "DEBUG_REVERSE_PROXY", Bool, "False"),
    key(Server, "DEBUG_SHOW_GUNICORN_OPTIONS", Bool, "False"),
    key(Server, "DEBUG_TOOLBAR", Bool, "False"),
    key(Server, "EXTERNAL_URL_SCHEME", Text, "https"),
    key(Server, "EXTERNAL_SERVER_NAME", Text, ""),
    key(Server, "EXTERNAL_SERVER_PORT", Int, ""),
    key(Server, "EXTERNAL_SCRIPT_NAME", Text, ""),
    key(Server, "GUNICORN_DEBUG_RELOAD", Bool, "False"),
    key(Server, "GUNICORN_NUM_WORKERS", Int, ""),
    key(Server, "GUNICORN_TIMEOUT_S", Int, "30"),
    key(Server, "HOST", Text, "127.0.0.1"),
    key(Server, "PORT", Int, "8000"),
    key(Server, "PROXY_HTTP_HOST", Text, ""),
    key(Server, "PROXY_REMOTE_ADDR", Text, ""),
    key(Server, "PROXY_REWRITE_PATH_INFO", Bool, "False"),
    key(Server, "PROXY_SCRIPT_NAME", Text, ""),
    key(Server, "PROXY_SERVER_NAME", Text, ""),
    key(Server, "PROXY_SERVER_PORT", Int, ""),
    key(Server, "PROXY_URL_SCHEME", Text, ""),
    key(Server, "SHOW_REQUEST_IMMEDIATELY", Bool, "False"),
    key(Server, "SHOW_REQUESTS", Bool, "False"),
    key(Server, "SHOW_RESPONSE", Bool, "False"),
    key(Server, "SHOW_TIMING", Bool, "False"),
    key(Server, "SSL_CERTIFICATE", Path, ""),
    key(Server, "SSL_PRIVATE_KEY", Path, ""),
    key(Server, "STATIC_CACHE_DURATION_S", Int, "86400"),
    key(Server, "TRUSTED_PROXY_HEADERS", Lines, ""),
    key(Server, "UNIX_DOMAIN_SOCKET", Path, ""),
    key(Export, "CELERY_BEAT_EXTRA_ARGS", Lines, ""),
    key(Export, "CELERY_BEAT_SCHEDULE_DATABASE", Path, "").required(),
    key(Export, "CELERY_BROKER_URL", Url, "amqp://"),
    key(Export, "CELERY_WORKER_EXTRA_ARGS", Lines, ""),
    key(Export, "CELERY_EXPORT_TASK_RATE_LIMIT", Text, ""),
    key(Export, "EXPORT_LOCKDIR", Path, "").required(),
    key(Export, "RECIPIENTS", Lines, ""),
    key(Export, "SCHEDULE", Lines, ""),
    key(Export, "SCHEDULE_TIMEZONE", Text, "UTC"),
    key(Recipient, "ALL_GROUPS", Bool, "False"),
    key(Recipient, "DB_ADD_SUMMARIES", Bool, "True"),
    key(Recipient, "DB_ECHO", Bool, "False"),
    key(Recipient, "DB_INCLUDE_BLOBS", Bool, "True"),
    key(Recipient, "DB_PATIENT_ID_PER_ROW", Bool, "False"),
    key(Recipient, "DB_URL", Url, ""),
    key(Recipient, "EMAIL_BCC", Lines, ""),
    key(Recipient, "EMAIL_BODY", Text, ""),
    key(Recipient, "EMAIL_BODY_IS_HTML", Bool, "False"),
    key(Recipient, "EMAIL_CC", Lines, ""),
    key(Recipient, "EMAIL_KEEP_MESSAGE", Bool, "False"),
    key(Recipient, "EMAIL_RECIPIENTS", Unread, ""),
    key(Recipient, "EMAIL_PATIENT_SPEC", Text, ""),
    key(Recipient, "EMAIL_PATIENT_SPEC_IF_ANONYMOUS", Text, ""),
    key(Recipient, "EMAIL_SUBJECT", Text, ""),
    key(Recipient, "EMAIL_TIMEOUT", Unread, ""),
    key(Recipient, "EMAIL_TO", Lines, ""),
    key(Recipient, "END_DATETIME_UTC", Text, ""),
    key(Recipient, "FHIR_API_URL", Url, ""),
    key(Recipient, "FHIR_APP_ID", Text, "camcops"),
    key(Recipient, "FHIR_APP_SECRET", Text, "").secret(),
    key(Recipient, "FHIR_LAUNCH_TOKEN", Text, "").secret(),
    key(Recipient, "FHIR_CONCURRENT", Bool, "False"),
    key(Recipient, "FILE_EXPORT_RIO_METADATA", Bool, "False"),
    key(Recipient, "FILE_FILENAME_SPEC", Path, ""),
    key(Recipient, "FILE_MAKE_DIRECTORY", Bool, "False"),
    key(Recipient, "FILE_OVERWRITE_FILES", Bool, "False"),
    key(Recipient, "FILE_PATIENT_SPEC", Text, ""),
    key(
        Recipient,
        "FILE_PATIENT_SPEC_IF_ANONYMOUS",
        Text,
        "anonymous",
    ),
    key(Recipient, "FILE_SCRIPT_AFTER_EXPORT", Path, ""),
    key(Recipient, "FINALIZED_ONLY", Bool, "True"),
    key(Recipient, "GROUPS", Lines, ""),
    key(Recipient, "HL7_DEBUG_DIVERT_TO_FILE", Bool, "False"),
    key(Recipient, "HL7_DEBUG_TREAT_DIVERTED_AS_SENT", Bool, "False"),
    key(Recipient, "HL7_HOST", Text, ""),
    key(Recipient, "HL7_KEEP_MESSAGE", Bool, "False"),
    key(Recipient, "HL7_KEEP_REPLY", Bool, "False"),
    key(Recipient, "HL7_NETWORK_TIMEOUT_MS", Int, "10000"),
    key(Recipient, "HL7_PING_FIRST", Bool, "True"),
    key(Recipient, "HL7_PORT", Int, "2575"),
    key(Recipient, "INCLUDE_ANONYMOUS", Bool, "False"),
    key(Recipient, "PRIMARY_IDNUM", Int, ""),
    key(Recipient, "PUSH", Bool, "False"),
    key(Recipient, "REDCAP_API_KEY", Text, "").secret(),
    key(Recipient, "REDCAP_API_URL", Url, ""),
    key(Recipient, "REDCAP_FIELDMAP_FILENAME", Path, ""),
    key(
        Recipient,
        "REQUIRE_PRIMARY_IDNUM_MANDATORY_IN_POLICY",
        Bool,
        "True",
    ),
    key(Recipient, "RIO_DOCUMENT_TYPE", Text, ""),
    key(Recipient, "RIO_IDNUM", Int, ""),
    key(Recipient, "RIO_UPLOADING_USER", Text, ""),
    key(Recipient, "START_DATETIME_UTC", Text, ""),
    key(Recipient, "TASK_FORMAT", Text, "pdf"),
    key(Recipient, "TASKS", Lines, ""),
    key(Recipient, "TRANSMISSION_METHOD", Text, "").required(),
    key(Recipient, "XML_FIELD_COMMENTS", Bool, "True"),
    key(Kapow, "USERNAME", Text, "").required(),
    key(Kapow, "PASSWORD", Text, "").required().secret(),
    key(Twilio, "SID", Text, "").required(),
    key(Twilio, "TOKEN", Text, "").required().secret(),
    key(Twilio, "FROM_PHONE_NUMBER", Text, "").required(),
];
