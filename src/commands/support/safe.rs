//! What of a log may leave the machine. Everything is left out but what is known to be harmless: a message may hold a name, a
//! query its values, an address the number of a patient.

/// How the services' own messages begin: those of the machinery, which knows nothing of patients.
const KNOWN: [&str; 26] = [
    "Booting worker with pid",
    "Connected to amqp",
    "Exception in worker process",
    "Handling signal",
    "Hang up",
    "Inspect method",
    "Listening at",
    "No export lock",
    "Restoring ",
    "Shutting down",
    "Starting gunicorn",
    "Using worker",
    "WORKER TIMEOUT",
    "Warm shutdown",
    "Worker (pid:",
    "Worker exiting",
    "Worker failed to boot",
    "beat: Starting",
    "beat: Shutting down",
    "camcops-provision:",
    "consumer: Cannot connect to amqp",
    "consumer: Connection to broker lost",
    "database   ",
    "broker     ",
    "mingle: ",
    "worker: ",
];
/// Words with which systemd tells of a unit.
const LIFE: [&str; 10] = [
    "Starting ",
    "Started ",
    "Stopping ",
    "Stopped ",
    "Reloading ",
    "Reloaded ",
    "Failed to start ",
    "Listening on ",
    "Finished ",
    "Closed ",
];

/// How bad a message is.
const LEVELS: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

/// A line of a service; nothing where all of it has to stay.
pub(crate) fn safe_service_line(line: &str) -> Option<String> {
    let trimmed = line.trim();
    if trimmed.starts_with("Traceback (most recent call last)") {
        return Some(trimmed.to_owned());
    }
    if is_place(trimmed) || is_life(trimmed) {
        return Some(line.trim_end().to_owned());
    }
    if let Some(class) = exception_name(trimmed) {
        return Some(format!("{class}: …"));
    }
    let (head, message) = split_line(trimmed)?;
    let known = KNOWN.iter().any(|known| message.starts_with(known));
    match (head.is_empty(), known) {
        (true, false) => None,
        (_, true) => Some(trimmed.to_owned()),
        (false, false) => Some(format!("{head} …")),
    }
}

/// A line of Apache's error log: when, who, how bad, and its number.
pub(crate) fn safe_apache_line(line: &str) -> Option<String> {
    let mut kept = Vec::new();
    let mut rest = line;
    while let Some(inner) = rest.strip_prefix('[') {
        let (field, behind) = inner.split_once(']')?;
        if !field.starts_with("client ") {
            kept.push(format!("[{field}]"));
        }
        rest = behind.trim_start();
    }
    if kept.is_empty() {
        return None;
    }
    let number = rest.split([':', ' ']).find(|word| is_number_of_apache(word));
    kept.extend(number.map(str::to_owned));
    Some(kept.join(" "))
}

fn is_number_of_apache(word: &str) -> bool {
    let digits = word.strip_prefix("AH");
    digits.is_some_and(|digits| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// `File "/usr/share/…/x.py", line 7, in name`
fn is_place(line: &str) -> bool {
    let place = line.strip_prefix("File \"").and_then(|rest| rest.split_once("\", line "));
    place.is_some_and(|(file, rest)| {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_<>, ".contains(c);
        (file.starts_with("/usr/") || file.starts_with('<')) && rest.chars().all(fine)
    })
}

/// What systemd says: of a unit by its name, or in its own words.
fn is_life(line: &str) -> bool {
    let of_unit = |line: &str| {
        let (unit, said) = line.split_once(": ").unwrap_or((line, ""));
        unit.starts_with("camcops") && unit.ends_with(".service") && !said.is_empty()
    };
    of_unit(line) || LIFE.iter().any(|word| line.starts_with(word)) && line.contains("camcops")
}

/// `pymysql.err.OperationalError: (2003, …)`, without what follows.
fn exception_name(line: &str) -> Option<&str> {
    let class = line.trim_start_matches('(').split([':', ')']).next()?;
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    let last = class.rsplit('.').next()?;
    let telling = ["Error", "Exception", "Warning", "Timeout", "Interrupt", "Exit"];
    (class.chars().all(fine) && telling.iter().any(|end| last.ends_with(end))).then_some(class)
}

/// Time, process and level, and what is said behind them.
fn split_line(line: &str) -> Option<(&str, &str)> {
    let mut end = 0;
    // [2026-11-21 23:30:22 +0000] [1532] [INFO], [2026-11-21 23:21:00,123: INFO/MainProcess], [I 261121 21:29:43 command:168]
    while let Some(inner) = line[end..].strip_prefix('[') {
        let length = inner.find(']')?;
        let field = &inner[..length];
        let fine = |c: char| c.is_ascii_alphanumeric() || " -+:,./".contains(c);
        let told = field.contains(|c: char| c.is_ascii_digit()) || LEVELS.contains(&field);
        if length > 60 || !told || !field.chars().all(fine) {
            return None;
        }
        end += length + 2;
        end += line[end..].len() - line[end..].trim_start().len();
    }
    if end == 0
        && let Some(length) = logger_end(line)
    {
        end = length;
    }
    let (head, message) = line.split_at(end);
    Some((head.trim_end(), message.trim_start()))
}

/// `2026-11-21 23:20:43.123 camcops_server.cc_modules.cc_x:INFO: `, with or without milliseconds
fn logger_end(line: &str) -> Option<usize> {
    let mut words = line.splitn(4, ' ');
    let (date, clock, name) = (words.next()?, words.next()?, words.next()?);
    let digits =
        |text: &str, more: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || more.contains(c));
    let level = name.rsplit(':').find(|part| !part.is_empty())?;
    let known = LEVELS.contains(&level);
    let fine = |c: char| c.is_ascii_alphanumeric() || "._:".contains(c);
    (digits(date, "-") && digits(clock, ":.,") && known && name.chars().all(fine))
        .then(|| date.len() + clock.len() + name.len() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machinery_says_of_itself_is_told() {
        for line in [
            "[2026-11-21 23:30:22 +0000] [1532] [INFO] Handling signal: term",
            "[2026-11-21 23:21:00,123: ERROR/MainProcess] consumer: Cannot connect to amqp://camcops:**@127.0.0.1:5672/camcops: refused",
            "  File \"/usr/share/camcops/venv/lib/a.py\", line 12, in <module>",
            "Traceback (most recent call last):",
            "camcops-server@camcops.service: Main process exited, code=killed, status=9/KILL",
            "Started camcops-server@camcops.service - CamCOPS server (camcops).",
            "[I 261121 21:29:43 mixins:228] Connected to amqp://camcops:**@127.0.0.1:5672/camcops",
        ] {
            assert_eq!(safe_service_line(line).as_deref(), Some(line));
        }
    }

    #[test]
    fn of_what_may_be_of_a_patient_only_the_place_is_told() {
        for (line, told) in [
            (
                "2026-11-21 23:20:43.123 camcops_server.cc_modules.cc_patient:WARNING: Alice Smith has no ID",
                Some("2026-11-21 23:20:43.123 camcops_server.cc_modules.cc_patient:WARNING: …"),
            ),
            (
                "[2026-11-21 23:30:22 +0000] [1532] [ERROR] Error handling request /task?serverpk=7&surname=Smith",
                Some("[2026-11-21 23:30:22 +0000] [1532] [ERROR] …"),
            ),
            (
                "sqlalchemy.exc.DataError: (pymysql.err.DataError) (1406, \"Data too long for 'Smith'\")",
                Some("sqlalchemy.exc.DataError: …"),
            ),
            ("(pymysql.err.OperationalError) (2003, 'Smith')", Some("pymysql.err.OperationalError: …")),
            ("[parameters: ('Alice', 'Smith', 7)]", None),
            ("[SQL: SELECT * FROM patient WHERE surname = 'Smith']", None),
            ("    patient = find('Smith')", None),
            ("Alice Smith", None),
            ("Smith: camcops-server.service: hello", None),
            ("File \"/home/Smith/a.py\", line 7, in x", None),
            ("[Smith] was here", None),
            ("", None),
        ] {
            assert_eq!(safe_service_line(line).as_deref(), told, "{line}");
        }
    }

    #[test]
    fn apache_tells_its_numbers_and_nobody_s_address() {
        let line = "[Sat Nov 21 21:29:44.068926 2026] [proxy_http:error] [pid 55:tid 55] (70007)The timeout specified has expired: [client 192.0.2.7:4711] AH01102: error reading status line, referer: https://x/task?surname=Smith";
        assert_eq!(
            safe_apache_line(line).as_deref(),
            Some("[Sat Nov 21 21:29:44.068926 2026] [proxy_http:error] [pid 55:tid 55] AH01102")
        );
        let line = "[Sat Nov 21 21:29:44 2026] [core:info] [pid 5] [client 192.0.2.7:1] Smith";
        assert_eq!(safe_apache_line(line).as_deref(), Some("[Sat Nov 21 21:29:44 2026] [core:info] [pid 5]"));
        assert_eq!(safe_apache_line("Smith"), None);
    }
}
