//! The file of a case: read, compared, written anew.

use crate::host::script::{Step, like};
use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use toml_edit::{DocumentMut, Item, Value};

/// Longer contents say nothing to a reader.
const LONGEST: usize = 700;

/// A case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// The behaviour, in a sentence.
    pub(super) says: String,
    /// What it is about: the kind and the name.
    pub(super) resource: Option<String>,
    /// A function of the drivers, where it is not observing or enforcing.
    pub(super) call: Option<String>,
    /// What that is given.
    #[serde(default)]
    pub(super) arguments: Vec<String>,
    /// The machine.
    #[serde(default)]
    pub(super) machine: Given,
    /// provision.toml.
    settings: Option<Json>,
    /// What stands on the machine.
    #[serde(default)]
    pub(super) files: BTreeMap<String, Stands>,
    /// What was observed.
    pub(super) before: Option<Json>,
    /// What is wanted; without it the case observes.
    pub(super) after: Option<Json>,
    /// What is asked, in order, with the answers.
    #[serde(default)]
    pub(super) steps: Vec<Step>,
    /// What comes of it.
    #[serde(default)]
    pub(super) result: Outcome,
    #[serde(skip)]
    pub(super) settings_text: String,
}

/// The machine of a case.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Given {
    /// Another family than Debian.
    pub(super) os: Option<String>,
    /// Another instance than the usual one.
    pub(super) instance: Option<String>,
    /// Who starts services there is not systemd.
    pub(super) without_systemd: bool,
    /// Programs that are not there.
    pub(super) lacks: Vec<String>,
    /// More accounts, as NAME:NUMBER, each with its group.
    pub(super) accounts: Vec<String>,
    /// What the journal says that this program has made.
    pub(super) made: Vec<String>,
    /// The password that another one takes the place of.
    pub(super) former_password: Option<String>,
    /// What somebody has typed in.
    pub(super) superuser_password: Option<String>,
    /// Who is made with the first tables.
    pub(super) first_superuser: Option<String>,
    /// Whether a migration leaves CamCOPS's index alone.
    pub(super) no_reindex: bool,
    /// A dump that was made just before.
    pub(super) dumped: Option<String>,
    /// Whether something listens at the web server's socket.
    pub(super) web_socket: bool,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Stands {
    Text(String),
    Entry(Entry),
}

/// What stands at a path, or no longer does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Entry {
    pub(super) gone: bool,
    /// It was written again as it was.
    pub(super) anew: bool,
    pub(super) directory: bool,
    pub(super) socket: bool,
    pub(super) link: Option<String>,
    pub(super) content: Option<String>,
    pub(super) mode: Option<String>,
    /// Which file or link it is.
    #[serde(skip)]
    pub(super) inode: Option<u64>,
}

/// What comes of a case.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Outcome {
    pub(super) done: bool,
    /// That it is done without doing anything is what the case is about.
    pub(super) nothing: bool,
    pub(super) left_alone: Option<String>,
    pub(super) error: Option<String>,
    pub(super) exit: Option<u8>,
    pub(super) answer: Option<Json>,
    pub(super) state: Option<Json>,
    /// What has changed on the disk.
    pub(super) files: BTreeMap<String, Entry>,
}

impl Case {
    pub(super) fn read(text: &str) -> Result<Case> {
        let document: DocumentMut = text.parse()?;
        let json = json(document.as_item());
        let mut case: Case = serde_json::from_value(json)?;
        if case.settings.take().is_some()
            && let Some(table) = document["settings"].as_table()
        {
            case.settings_text = DocumentMut::from(table.clone()).to_string();
        }
        Ok(case)
    }

    pub(super) fn refuse_empty(&self) -> Result<()> {
        let Outcome { done, nothing, left_alone, error, answer, state, files, .. } = &self.result;
        let does = !self.steps.is_empty() || !files.is_empty();
        let told = left_alone.is_some() || error.is_some() || answer.is_some() || state.is_some();
        match told || *done && (does || *nothing) {
            true => Ok(()),
            false => Err(anyhow!("the case asserts nothing")),
        }
    }

    /// The text of the file with other steps and another result. All that stands above them is the author's.
    pub(super) fn with(&self, text: &str, steps: &[Step], outcome: &Outcome) -> String {
        let head = text
            .lines()
            .take_while(|line| !line.starts_with("[[steps]]") && !line.starts_with("[result"))
            .collect::<Vec<_>>()
            .join("\n");
        let mut outcome = outcome.clone();
        outcome.nothing = outcome.done && steps.is_empty() && outcome.files.is_empty();
        // What the author has left out stays so.
        for (mine, theirs) in
            [(&self.result.error, &mut outcome.error), (&self.result.left_alone, &mut outcome.left_alone)]
        {
            if let (Some(mine), Some(text)) = (mine, &theirs)
                && like(mine, text)
            {
                theirs.clone_from(&Some(mine.clone()));
            }
        }
        for (path, entry) in &mut outcome.files {
            if let Some(mine) = self.result.files.get(path).filter(|mine| entry.is_like(mine)) {
                entry.clone_from(mine);
            }
        }
        format!("{}\n\n{}", head.trim_end(), told(steps, &outcome))
    }
}

impl Entry {
    /// Whether it is as the case has it.
    fn is_like(&self, wanted: &Entry) -> bool {
        let content = match (&self.content, &wanted.content) {
            (Some(content), Some(wanted)) => like(wanted, content),
            (content, wanted) => content == wanted,
        };
        let but_for_that = Entry { content: wanted.content.clone(), ..self.clone() };
        content && but_for_that == *wanted
    }
}

impl Outcome {
    /// Whether it is as the case has it.
    pub(super) fn is_like(&self, wanted: &Outcome) -> bool {
        let same = |mine: &Option<String>, theirs: &Option<String>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => like(theirs, mine),
            (mine, theirs) => mine == theirs,
        };
        same(&self.error, &wanted.error)
            && same(&self.left_alone, &wanted.left_alone)
            && (self.done, self.exit, &self.answer, &self.state)
                == (wanted.done, wanted.exit, &wanted.answer, &wanted.state)
            && self.files.keys().eq(wanted.files.keys())
            && self.files.iter().all(|(path, entry)| entry.is_like(&wanted.files[path]))
    }
}

/// Steps and result as they stand in a file.
pub(super) fn told(steps: &[Step], outcome: &Outcome) -> String {
    let mut text = String::new();
    for step in steps {
        text.push_str("[[steps]]\n");
        let (kind, question) = step.question();
        line(&mut text, kind, &question.into());
        let json = serde_json::to_value(step).unwrap();
        for (key, value) in json.as_object().unwrap() {
            if key != kind && !is_empty(value) {
                line(&mut text, key, value);
            }
        }
        text.push('\n');
    }
    text.push_str("[result]\n");
    for (key, is_so) in [("done", outcome.done), ("nothing", outcome.nothing)] {
        if is_so {
            line(&mut text, key, &true.into());
        }
    }
    for (key, value) in [("left_alone", &outcome.left_alone), ("error", &outcome.error)] {
        if let Some(value) = value {
            line(&mut text, key, &value.as_str().into());
        }
    }
    if let Some(exit) = outcome.exit {
        line(&mut text, "exit", &exit.into());
    }
    if let Some(answer) = &outcome.answer {
        line(&mut text, "answer", answer);
    }
    match &outcome.state {
        Some(Json::Object(state)) => {
            text.push_str("\n[result.state]\n");
            for (key, value) in state {
                line(&mut text, key, value);
            }
        }
        Some(state) => line(&mut text, "state", state),
        None => {}
    }
    if !outcome.files.is_empty() {
        text.push_str("\n[result.files]\n");
        for (path, entry) in &outcome.files {
            let entry = serde_json::to_value(entry).unwrap();
            line(&mut text, &format!("\"{path}\""), &entry);
        }
    }
    text
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::Array(all) => all.is_empty(),
        Json::Object(all) => all.is_empty(),
        _ => false,
    }
}

fn line(text: &mut String, key: &str, value: &Json) {
    let value = toml(value);
    let _ = writeln!(text, "{key} = {}", value.to_string().trim());
}

fn toml(value: &Json) -> Value {
    match value {
        Json::Bool(is_so) => (*is_so).into(),
        Json::Number(number) => number.as_i64().unwrap().into(),
        Json::String(text) => text.as_str().into(),
        Json::Array(all) => all.iter().map(toml).collect(),
        Json::Object(all) => {
            let filled = all.iter().filter(|(_, value)| !is_empty(value));
            Value::InlineTable(filled.map(|(key, value)| (key.as_str(), toml(value))).collect())
        }
        Json::Null => "nothing".into(),
    }
}

fn json(item: &Item) -> Json {
    match item {
        Item::None => Json::Null,
        Item::Value(value) => json_of(value),
        Item::Table(table) => {
            let pairs = table.iter().map(|(key, item)| (key.to_owned(), json(item)));
            Json::Object(pairs.collect())
        }
        Item::ArrayOfTables(tables) => {
            let tables = tables.iter();
            Json::Array(tables.map(|table| json(&Item::Table(table.clone()))).collect())
        }
    }
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::String(text) => text.value().as_str().into(),
        Value::Integer(number) => (*number.value()).into(),
        Value::Boolean(is_so) => (*is_so.value()).into(),
        Value::Array(all) => all.iter().map(json_of).collect(),
        Value::InlineTable(table) => {
            let pairs = table.iter().map(|(key, value)| (key.to_owned(), json_of(value)));
            Json::Object(pairs.collect())
        }
        other => other.to_string().into(),
    }
}

/// What differs between two looks at a tree.
pub(super) fn changes(before: &BTreeMap<String, Entry>, after: &BTreeMap<String, Entry>) -> BTreeMap<String, Entry> {
    let mut changes = BTreeMap::new();
    for (path, entry) in after {
        let former = before.get(path);
        if former != Some(entry) {
            let mut entry = Entry { inode: None, ..entry.clone() };
            if former.is_some_and(|former| Entry { inode: None, ..former.clone() } == entry) {
                entry = Entry { anew: true, ..Entry::default() };
            }
            if entry.content.as_ref().is_some_and(|text| text.len() > LONGEST) {
                entry.content = Some("…".into());
            }
            changes.insert(path.clone(), entry);
        }
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        let gone = Entry { gone: true, ..Entry::default() };
        changes.insert(path.clone(), gone);
    }
    changes
}
