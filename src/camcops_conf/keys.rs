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

/// Makes the table: in each section a key, its kind, what its absence means if anything, and marks.
macro_rules! conf_keys {
    ($( $section:ident { $( $name:ident $kind:ident $($default:literal)? $($mark:ident)* ; )+ } )+) => {
        /// Every key, in CamCOPS's own order.
        pub static KEYS: &[ConfKey] = &[$($(
            ConfKey {
                section: $section,
                name: stringify!($name),
                kind: $kind,
                default: concat!($($default)?),
                required: false,
                secret: false,
            }$(.$mark())*,
        )+)+];
    };
}

conf_keys! {
    Site {
        ALLOW_INSECURE_COOKIES Bool "False";
        CAMCOPS_LOGO_FILE_ABSOLUTE Path;
        CLIENT_API_LOGLEVEL Level "info";
        CTV_FILENAME_SPEC Text required;
        DB_URL Url required;
        DB_ECHO Bool "False";
        DISABLE_PASSWORD_AUTOCOMPLETE Bool "True";
        EMAIL_FROM Text;
        EMAIL_HOST Text;
        EMAIL_HOST_PASSWORD Text secret;
        EMAIL_HOST_PASSWORD_GNU_PASS_LOOKUP Text;
        EMAIL_HOST_USERNAME Text;
        EMAIL_PORT Int "587";
        EMAIL_REPLY_TO Text;
        EMAIL_SENDER Text;
        EMAIL_USE_TLS Bool "True";
        EXTRA_STRING_FILES Lines;
        LANGUAGE Text "en_GB";
        LOCAL_INSTITUTION_URL Url "https://camcops.readthedocs.io/";
        LOCAL_LOGO_FILE_ABSOLUTE Path;
        LOCKOUT_DURATION_INCREMENT_MINUTES Int "10";
        LOCKOUT_THRESHOLD Int "10";
        MFA_METHODS Lines "no_mfa";
        MFA_TIMEOUT_S Int "600";
        PASSWORD_CHANGE_FREQUENCY_DAYS Int "0";
        PATIENT_SPEC Text required;
        PATIENT_SPEC_IF_ANONYMOUS Text "anonymous";
        PERMIT_IMMEDIATE_DOWNLOADS Bool "False";
        REGION_CODE Text "GB";
        RESTRICTED_TASKS Lines;
        SESSION_COOKIE_SECRET Text required secret;
        SESSION_TIMEOUT_MINUTES Int "30";
        SESSION_CHECK_USER_IP Bool "True";
        SMS_BACKEND Text "console";
        SNOMED_TASK_XML_FILENAME Path;
        SNOMED_ICD9_XML_FILENAME Path;
        SNOMED_ICD10_XML_FILENAME Path;
        TASK_FILENAME_SPEC Text required;
        TRACKER_FILENAME_SPEC Text required;
        USER_DOWNLOAD_DIR Path;
        USER_DOWNLOAD_FILE_LIFETIME_MIN Int "60";
        USER_DOWNLOAD_MAX_SPACE_MB Int "100";
        WEBVIEW_LOGLEVEL Level "info";
        WKHTMLTOPDF_FILENAME Path;
    }

    Server {
        CHERRYPY_LOG_SCREEN Bool "True";
        CHERRYPY_ROOT_PATH Text "/";
        CHERRYPY_SERVER_NAME Text "localhost";
        CHERRYPY_THREADS_MAX Int "100";
        CHERRYPY_THREADS_START Int "10";
        DEBUG_REVERSE_PROXY Bool "False";
        DEBUG_SHOW_GUNICORN_OPTIONS Bool "False";
        DEBUG_TOOLBAR Bool "False";
        EXTERNAL_URL_SCHEME Text "https";
        EXTERNAL_SERVER_NAME Text;
        EXTERNAL_SERVER_PORT Int;
        EXTERNAL_SCRIPT_NAME Text;
        GUNICORN_DEBUG_RELOAD Bool "False";
        GUNICORN_NUM_WORKERS Int;
        GUNICORN_TIMEOUT_S Int "30";
        HOST Text "127.0.0.1";
        PORT Int "8000";
        PROXY_HTTP_HOST Text;
        PROXY_REMOTE_ADDR Text;
        PROXY_REWRITE_PATH_INFO Bool "False";
        PROXY_SCRIPT_NAME Text;
        PROXY_SERVER_NAME Text;
        PROXY_SERVER_PORT Int;
        PROXY_URL_SCHEME Text;
        SHOW_REQUEST_IMMEDIATELY Bool "False";
        SHOW_REQUESTS Bool "False";
        SHOW_RESPONSE Bool "False";
        SHOW_TIMING Bool "False";
        SSL_CERTIFICATE Path;
        SSL_PRIVATE_KEY Path;
        STATIC_CACHE_DURATION_S Int "86400";
        TRUSTED_PROXY_HEADERS Lines;
        UNIX_DOMAIN_SOCKET Path;
    }

    Export {
        CELERY_BEAT_EXTRA_ARGS Lines;
        CELERY_BEAT_SCHEDULE_DATABASE Path required;
        CELERY_BROKER_URL Url "amqp://";
        CELERY_WORKER_EXTRA_ARGS Lines;
        CELERY_EXPORT_TASK_RATE_LIMIT Text;
        EXPORT_LOCKDIR Path required;
        RECIPIENTS Lines;
        SCHEDULE Lines;
        SCHEDULE_TIMEZONE Text "UTC";
    }

    Recipient {
        ALL_GROUPS Bool "False";
        DB_ADD_SUMMARIES Bool "True";
        DB_ECHO Bool "False";
        DB_INCLUDE_BLOBS Bool "True";
        DB_PATIENT_ID_PER_ROW Bool "False";
        DB_URL Url;
        EMAIL_BCC Lines;
        EMAIL_BODY Text;
        EMAIL_BODY_IS_HTML Bool "False";
        EMAIL_CC Lines;
        EMAIL_KEEP_MESSAGE Bool "False";
        EMAIL_RECIPIENTS Unread;
        EMAIL_PATIENT_SPEC Text;
        EMAIL_PATIENT_SPEC_IF_ANONYMOUS Text;
        EMAIL_SUBJECT Text;
        EMAIL_TIMEOUT Unread;
        EMAIL_TO Lines;
        END_DATETIME_UTC Text;
        FHIR_API_URL Url;
        FHIR_APP_ID Text "camcops";
        FHIR_APP_SECRET Text secret;
        FHIR_LAUNCH_TOKEN Text secret;
        FHIR_CONCURRENT Bool "False";
        FILE_EXPORT_RIO_METADATA Bool "False";
        FILE_FILENAME_SPEC Path;
        FILE_MAKE_DIRECTORY Bool "False";
        FILE_OVERWRITE_FILES Bool "False";
        FILE_PATIENT_SPEC Text;
        FILE_PATIENT_SPEC_IF_ANONYMOUS Text "anonymous";
        FILE_SCRIPT_AFTER_EXPORT Path;
        FINALIZED_ONLY Bool "True";
        GROUPS Lines;
        HL7_DEBUG_DIVERT_TO_FILE Bool "False";
        HL7_DEBUG_TREAT_DIVERTED_AS_SENT Bool "False";
        HL7_HOST Text;
        HL7_KEEP_MESSAGE Bool "False";
        HL7_KEEP_REPLY Bool "False";
        HL7_NETWORK_TIMEOUT_MS Int "10000";
        HL7_PING_FIRST Bool "True";
        HL7_PORT Int "2575";
        INCLUDE_ANONYMOUS Bool "False";
        PRIMARY_IDNUM Int;
        PUSH Bool "False";
        REDCAP_API_KEY Text secret;
        REDCAP_API_URL Url;
        REDCAP_FIELDMAP_FILENAME Path;
        REQUIRE_PRIMARY_IDNUM_MANDATORY_IN_POLICY Bool "True";
        RIO_DOCUMENT_TYPE Text;
        RIO_IDNUM Int;
        RIO_UPLOADING_USER Text;
        START_DATETIME_UTC Text;
        TASK_FORMAT Text "pdf";
        TASKS Lines;
        TRANSMISSION_METHOD Text required;
        XML_FIELD_COMMENTS Bool "True";
    }

    Kapow {
        USERNAME Text required;
        PASSWORD Text required secret;
    }

    Twilio {
        SID Text required;
        TOKEN Text required secret;
        FROM_PHONE_NUMBER Text required;
    }
}
