//! The pictures of the documentation, taken while the program does on a machine what they show. `docs/pictures` keeps them.

use crate::harness::booted::Booted;
use crate::harness::browser::Browser;
use crate::harness::installed::{self, COMMAND, PASSWORD};
use crate::harness::site::wait_until_at_work;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How wide the terminal is, in characters.
const COLUMNS: usize = 100;

const SAMPLES: &str = include_str!("../../docs/samples");

#[test]
#[ignore = "thorough: a whole install, for pictures"]
fn they_are_of_a_site_that_is_installed() {
    let Some(machine) = installed::bare() else {
        return;
    };
    let browser = Browser::open(&machine);

    let plan = at_terminal(&machine, "plan", "camcops-provision plan");
    let lines = plan.len();
    assert!(text_of(&plan[lines - 1..]).contains("changes pending"), "{}", text_of(&plan));
    // Its beginning and its sum: all of it is longer than a page.
    let shown: Vec<Line> = [&plan[..28], &[plain("  ...")], &plan[lines - 7..]].concat();
    keep("plan.png", &of_terminal(&browser, "camcops-provision plan", &shown));

    machine.run(&format!("printf '%s\n' '{PASSWORD}' > /root/word"));
    let command = COMMAND.join(" ");
    let (shown, at_work) = while_at_work(&machine, &command);
    assert!(text_of(&at_work).contains("packages"), "{}", text_of(&at_work));
    let typed = "camcops-provision install --yes --superuser admin";
    keep("install.png", &of_terminal(&browser, typed, &at_work));
    assert!(text_of(&shown).contains("/login"), "{}", text_of(&shown));
    keep("installed.png", &of_terminal(&browser, typed, &shown));

    wait_until_at_work(&machine, "the install");
    browser.log_in();
    browser.resize(1000, 640);
    keep("login.png", &browser.picture());

    fs::write(machine.path("/root/samples.py"), SAMPLES).unwrap();
    // Invented: a site that has just been made has no month behind it.
    machine.run("python3 /root/samples.py > /var/lib/camcops-provision/camcops/samples; camcops-provision status --html /root/page.html");
    fs::copy(machine.path("/root/page.html"), browser.path("/page.html")).unwrap();
    browser.resize(1000, 1560);
    browser.go("file:///page.html");
    browser.wait_for_text("Waiting");
    keep("page.png", &browser.picture());
}

/// Where `docs/pictures` wants them, or where nobody minds.
fn keep(name: &str, picture: &[u8]) {
    let wanted = std::env::var_os("CAMCOPS_TEST_PICTURES").map(PathBuf::from);
    let folder = wanted.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), picture).unwrap();
}

/// A character, and how it looks: the parameters of the escape sequence before it.
type Cell = (char, String);
type Line = Vec<Cell>;

fn plain(text: &str) -> Line {
    text.chars().map(|c| (c, String::new())).collect()
}

fn text_of(lines: &[Line]) -> String {
    lines.iter().map(|line| line.iter().map(|(c, _)| *c).collect::<String>() + "\n").collect()
}

/// Begins a command at a terminal of its own; what it writes goes to /root/NAME.
fn begin(machine: &Booted, name: &str, command: &str) {
    machine.run(&format!(
        "printf '%s\n' 'stty cols {COLUMNS} rows 40; {command}; echo $? > /root/{name}.code' > /root/{name}.sh
         : > /root/{name}
         TERM=xterm-256color setsid script -qfc 'bash /root/{name}.sh' /root/{name} < /root/word > /dev/null 2>&1 &",
    ));
}

fn ended(machine: &Booted, name: &str) -> Option<String> {
    fs::read_to_string(machine.path(&format!("/root/{name}.code"))).ok().filter(|code| code.ends_with('\n'))
}

fn seen(machine: &Booted, name: &str) -> Vec<Line> {
    let stream = fs::read(machine.path(&format!("/root/{name}"))).unwrap();
    let mut lines = screen(&String::from_utf8_lossy(&stream));
    // What `script` itself says of when it began and ended.
    lines.retain(|line| !text_of(std::slice::from_ref(line)).starts_with("Script "));
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines
}

/// What a command leaves on a terminal.
fn at_terminal(machine: &Booted, name: &str, command: &str) -> Vec<Line> {
    machine.run("touch /root/word");
    begin(machine, name, command);
    let start = Instant::now();
    while ended(machine, name).is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", text_of(&seen(machine, name)));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ended(machine, name).unwrap(), "0\n", "{}", text_of(&seen(machine, name)));
    seen(machine, name)
}

/// What an install leaves on a terminal, and how it looked while it built the tables.
fn while_at_work(machine: &Booted, command: &str) -> (Vec<Line>, Vec<Line>) {
    begin(machine, "install", command);
    let mut at_work = Vec::new();
    let start = Instant::now();
    while ended(machine, "install").is_none() {
        let now = seen(machine, "install");
        assert!(start.elapsed() < Duration::from_secs(900), "{}", text_of(&now));
        if text_of(&now).lines().last().is_some_and(|line| line.contains("revision")) {
            at_work = now;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let all = seen(machine, "install");
    assert_eq!(ended(machine, "install").unwrap(), "0\n", "{}", text_of(&all));
    (all, at_work)
}

/// A terminal's screen after a stream, as far as this program uses one: lines, the way back to a line's begin, colours.
fn screen(stream: &str) -> Vec<Line> {
    let mut lines = vec![Line::new()];
    let (mut at, mut look) = (0, String::new());
    let mut rest = stream.chars();
    while let Some(c) = rest.next() {
        let line = lines.last_mut().unwrap();
        match c {
            '\r' => at = 0,
            '\n' => {
                lines.push(Line::new());
                at = 0;
            }
            '\x1b' => {
                assert_eq!(rest.next(), Some('['), "{stream:?}");
                let sequence: String = rest.by_ref().take_while(|c| c.is_ascii_digit() || *c == ';').collect();
                // `take_while` has taken the letter that ends it.
                let used = stream.len() - rest.as_str().len();
                match stream.as_bytes()[used - 1] {
                    b'm' if sequence.is_empty() || sequence == "0" => look.clear(),
                    b'm' => write!(look, "{sequence};").unwrap(),
                    b'K' => line.truncate(at),
                    other => panic!("{:?} in {stream:?}", char::from(other)),
                }
            }
            _ => {
                match line.get_mut(at) {
                    Some(cell) => *cell = (c, look.clone()),
                    None => line.push((c, look.clone())),
                }
                at += 1;
            }
        }
    }
    if lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines
}

/// A picture of a terminal with a command and what it said.
fn of_terminal(browser: &Browser<'_>, command: &str, lines: &[Line]) -> Vec<u8> {
    let mut html = format!(
        "<!doctype html><meta charset=utf-8><style>
         body {{ margin: 0; background: #1c2128; color: #cdd9e5; font: 14px/18px 'DejaVu Sans Mono'; padding: 14px 16px }}
         pre {{ margin: 0; font: inherit }} .b {{ font-weight: bold }} .d {{ color: #768390 }}
         .r {{ color: #f47067 }} .g {{ color: #8ddb8c }} .y {{ color: #f0b849 }} .c {{ color: #6cb6ff }}
         </style><pre><span class=d># </span>{command}\n"
    );
    for (c, look) in lines.iter().flat_map(|line| line.iter().cloned().chain([('\n', String::new())])) {
        let classes: Vec<&str> = look
            .split(';')
            .filter_map(|code| match code {
                "1" => Some("b"),
                "2" => Some("d"),
                "31" => Some("r"),
                "32" => Some("g"),
                "33" => Some("y"),
                "34" | "36" => Some("c"),
                _ => None,
            })
            .collect();
        let c = match c {
            '<' => "&lt;".to_owned(),
            '&' => "&amp;".to_owned(),
            c => c.to_string(),
        };
        match classes.is_empty() {
            true => html.push_str(&c),
            false => write!(html, "<span class='{}'>{c}</span>", classes.join(" ")).unwrap(),
        }
    }
    fs::write(browser.path("/terminal.html"), html).unwrap();
    browser.resize(COLUMNS as u32 * 9, 18 * (lines.len() as u32 + 1) + 32);
    browser.go("file:///terminal.html");
    browser.picture()
}
