//! What is seen of long work: one line that lives on a terminal, plain lines elsewhere, one event a line for programs.
//!
//! Standard error belongs to the whole program, and so does this.

use crate::base::terminal::{self, count_of};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the line of a terminal is drawn, so that its clock goes on.
const OFTEN: Duration = Duration::from_millis(250);
/// How often a program hears how far something is.
const NEWS: Duration = Duration::from_millis(500);
/// An amount is told in plain lines about so many times.
const TOLD: u64 = 10;
/// Of bytes at least so many lie between two plain lines.
const FEW_BYTES: u64 = 64 << 20;
/// Of things whose number nobody knows, so many.
const FEW_ITEMS: u64 = 30;

/// How the progress of long work is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum ProgressMode {
    /// A progress line on a terminal, plain lines elsewhere
    #[default]
    Auto,
    /// A progress line that is redrawn
    Bar,
    /// A line for each change
    Lines,
    /// One JSON event per line, on standard error
    Json,
    /// Nothing
    None,
}

impl ProgressMode {
    /// What auto is here.
    fn decided(self, quiet: bool) -> ProgressMode {
        match self {
            ProgressMode::Auto if quiet => ProgressMode::None,
            ProgressMode::Auto if terminal::can_redraw() => ProgressMode::Bar,
            ProgressMode::Auto => ProgressMode::Lines,
            chosen => chosen,
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// What is copied or fetched.
    Bytes,
    /// What comes one by one.
    Items,
}

/// How far something is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount<'a> {
    /// What is done, as "dumping the database".
    pub(crate) what: &'a str,
    pub(crate) done: u64,
    /// Nought where nobody knows.
    pub(crate) all: u64,
    pub(crate) unit: Unit,
}

impl Amount<'_> {
    /// In a line of its own.
    pub(crate) fn line(self) -> String {
        let Amount { what, done, all, unit } = self;
        match (unit, all) {
            (Unit::Bytes, 0) => format!("{what}: {} MiB", done >> 20),
            (Unit::Bytes, all) => format!("{what}: {} of {} MiB", done.min(all) >> 20, all >> 20),
            (Unit::Items, 0) => format!("{what}: {done}"),
            (Unit::Items, all) => format!("{what}: {done} of {all}"),
        }
    }

    /// How much lies between two plain lines.
    fn step(self) -> u64 {
        match (self.unit, self.all) {
            (Unit::Bytes, all) => (all / TOLD).max(FEW_BYTES),
            (Unit::Items, 0) => FEW_ITEMS,
            (Unit::Items, all) => all.div_ceil(TOLD),
        }
    }

    fn share(self) -> Option<f64> {
        // A picture of it needs no more bits than these.
        #[allow(clippy::cast_precision_loss)]
        (self.all > 0).then(|| (self.done as f64 / self.all as f64).min(1.0))
    }
}

/// One thing that is told on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told<'a> {
    /// A line for people.
    Line(&'a str),
    /// How far something is; may come often.
    Amount(Amount<'a>),
}

/// Whom long work tells how it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tell(pub(crate) fn(Told<'_>));

impl Tell {
    /// Says it to the terminal, or however else the command line wants progress shown.
    pub(crate) const SHOWN: Tell = Tell(hear);
    /// Says it to nobody.
    #[cfg(test)]
    pub(crate) const NOBODY: Tell = Tell(|_| {});

    pub(crate) fn line(self, text: &str) {
        (self.0)(Told::Line(text));
    }

    pub(crate) fn amount(self, amount: Amount<'_>) {
        (self.0)(Told::Amount(amount));
    }
}

/// One change of a run, for who shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownStep<'a> {
    /// Its number, from one.
    pub(crate) index: usize,
    /// How many there are.
    pub(crate) all: usize,
    /// Its part of the installation.
    pub(crate) part: &'a str,
    /// What is done.
    pub(crate) what: &'a str,
}

/// A run that is shown; when this goes, so does the line.
#[derive(Debug)]
#[must_use]
pub(crate) struct ShownRun(());

/// What is known of the amount at hand.
#[derive(Debug)]
struct Counted {
    what: String,
    done: u64,
    all: u64,
    unit: Unit,
    begin: Instant,
    /// How much was told in plain lines, or when to a program.
    told: u64,
    news: Instant,
}

impl Counted {
    fn amount(&self) -> Amount<'_> {
        Amount { what: &self.what, done: self.done, all: self.all, unit: self.unit }
    }
}

/// What is known of the run at hand.
#[derive(Debug)]
struct Run {
    begin: Instant,
    /// The change that is made: its number, how many there are.
    index: usize,
    all: usize,
    part: String,
    /// When the part began, and how many changes of it were made.
    part_begin: Instant,
    made: usize,
    what: String,
    /// How long it still took the last time, from then on.
    left: Option<(Duration, Instant)>,
}

/// All that is shown at the moment.
#[derive(Debug, Default)]
struct Display {
    mode: ProgressMode,
    run: Option<Run>,
    /// Which run, so that a clock stops with its own.
    number: u64,
    counted: Option<Counted>,
}

static DISPLAY: Mutex<Display> = Mutex::new(Display { mode: ProgressMode::None, run: None, number: 0, counted: None });

fn display() -> MutexGuard<'static, Display> {
    DISPLAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows progress in this way from now on.
pub(crate) fn show_as(mode: ProgressMode, quiet: bool) {
    let mode = mode.decided(quiet);
    display().mode = mode;
    terminal::speak_in_events(mode == ProgressMode::Json);
}

fn hear(told: Told<'_>) {
    display().hear(told, Instant::now());
}

/// Begins to show a run of so many changes.
pub(crate) fn begin_run(all: usize) -> ShownRun {
    let now = Instant::now();
    let mut display = display();
    display.number += 1;
    display.counted = None;
    display.run = Some(Run {
        begin: now,
        index: 0,
        all,
        part: String::new(),
        part_begin: now,
        made: 0,
        what: String::new(),
        left: None,
    });
    if display.mode == ProgressMode::Bar {
        let number = display.number;
        std::thread::spawn(move || keep_drawing(number));
    }
    ShownRun(())
}

/// Lets the clock of the line go on.
fn keep_drawing(number: u64) {
    loop {
        std::thread::sleep(OFTEN);
        let display = display();
        if display.run.is_none() || display.number != number {
            return;
        }
        display.draw(Instant::now());
    }
}

impl ShownRun {
    /// Says what is done now, and how long all that is left took the last time.
    pub(crate) fn begins(&self, step: ShownStep<'_>, left: Option<Duration>) {
        display().begins(step, left, Instant::now());
    }

    /// Says what was done; `remark` is worth a line in any case.
    pub(crate) fn made(&self, step: ShownStep<'_>, remark: Option<&str>, verbose: bool) {
        display().made(step, remark, verbose);
    }

    /// Says what was not planned.
    pub(crate) fn note(&self, text: &str) {
        display().note(text);
    }
}

impl Drop for ShownRun {
    fn drop(&mut self) {
        let mut display = display();
        display.end_part(Instant::now());
        display.run = None;
        display.counted = None;
        terminal::wipe_live();
    }
}

impl Display {
    fn hear(&mut self, told: Told<'_>, now: Instant) {
        match (self.mode, told) {
            (ProgressMode::None, _) => {}
            (ProgressMode::Json, Told::Line(text)) => event(&json!({ "event": "note", "text": text })),
            (ProgressMode::Bar, Told::Line(text)) => {
                self.counted = None;
                match &mut self.run {
                    Some(run) => {
                        text.clone_into(&mut run.what);
                        self.draw(now);
                    }
                    None => terminal::print_note(&format!("  {text}")),
                }
            }
            (_, Told::Line(text)) => terminal::print_note(&format!("  {text}")),
            (_, Told::Amount(amount)) => self.count(amount, now),
        }
    }

    fn count(&mut self, amount: Amount<'_>, now: Instant) {
        let same = self.counted.as_ref().is_some_and(|known| known.what == amount.what && known.done <= amount.done);
        if !same {
            self.counted = Some(Counted {
                what: amount.what.to_owned(),
                done: 0,
                all: amount.all,
                unit: amount.unit,
                begin: now,
                told: 0,
                news: now,
            });
        }
        let Some(counted) = &mut self.counted else { return };
        (counted.done, counted.all) = (amount.done, amount.all);
        let complete = amount.all > 0 && amount.done >= amount.all;
        match self.mode {
            ProgressMode::Bar => {
                if complete && self.run.is_none() {
                    self.counted = None;
                    terminal::wipe_live();
                } else if !same || complete || now - counted.news >= OFTEN {
                    counted.news = now;
                    self.draw(now);
                }
            }
            ProgressMode::Json => {
                if !same || complete || now - counted.news >= NEWS {
                    counted.news = now;
                    let unit = if amount.unit == Unit::Bytes { "bytes" } else { "items" };
                    let all = Some(amount.all).filter(|all| *all > 0);
                    event(
                        &json!({ "event": "amount", "what": amount.what, "done": amount.done, "of": all, "unit": unit }),
                    );
                }
            }
            _ => {
                // Who counts things hears of the last one.
                let last = complete && amount.unit == Unit::Items && counted.told < amount.done;
                if last || amount.done >= counted.told + amount.step() {
                    counted.told = amount.done;
                    terminal::print_note(&format!("  {}", amount.line()));
                }
            }
        }
    }

    fn begins(&mut self, step: ShownStep<'_>, left: Option<Duration>, now: Instant) {
        if self.run.as_ref().is_some_and(|run| run.part != step.part) {
            self.end_part(now);
        }
        self.counted = None;
        let Some(run) = &mut self.run else { return };
        if run.part != step.part {
            step.part.clone_into(&mut run.part);
            (run.part_begin, run.made) = (now, 0);
        }
        (run.index, run.all) = (step.index, step.all);
        step.what.clone_into(&mut run.what);
        run.left = left.map(|left| (left, now));
        match self.mode {
            ProgressMode::Bar => self.draw(now),
            ProgressMode::Json => event(&json!({
                "event": "begin", "index": step.index, "of": step.all, "part": step.part, "what": step.what,
                "seconds_left": left.map(|left| left.as_secs()),
            })),
            _ => {}
        }
    }

    fn made(&mut self, step: ShownStep<'_>, remark: Option<&str>, verbose: bool) {
        let ShownStep { index, all, part, what } = step;
        if let Some(run) = &mut self.run {
            run.made += 1;
        }
        let line = || {
            let width = all.to_string().len();
            let remark = remark.map(|remark| format!(" ({remark})")).unwrap_or_default();
            format!("[{index:width$}/{all}] {what}{remark}")
        };
        match self.mode {
            ProgressMode::None | ProgressMode::Auto => {}
            ProgressMode::Lines => terminal::print_note(&line()),
            ProgressMode::Bar if verbose || remark.is_some() => terminal::print_note(&line()),
            ProgressMode::Bar => {}
            ProgressMode::Json => event(&json!({
                "event": "change", "index": index, "of": all, "part": part, "what": what, "remark": remark,
            })),
        }
    }

    fn note(&self, text: &str) {
        match self.mode {
            ProgressMode::None => {}
            ProgressMode::Json => event(&json!({ "event": "note", "text": text })),
            _ => terminal::print_note(&format!("  {text}")),
        }
    }

    /// Of a part that is through, a line stays.
    fn end_part(&mut self, now: Instant) {
        let Some(run) = &mut self.run else { return };
        if self.mode == ProgressMode::Bar && run.made > 0 {
            let took = clock(now - run.part_begin);
            terminal::print_note(&format!("{}: {} in {took}", run.part, count_of(run.made, "change")));
        }
        run.made = 0;
    }

    fn draw(&self, now: Instant) {
        terminal::draw_live(&self.live_line(usize::from(terminal::complaint_width()), now));
    }

    /// `[12/137] packages: setting up rabbitmq-server [####----] 48 %  0:32, about 1:10 left`
    fn live_line(&self, width: usize, now: Instant) -> String {
        let counted = self.counted.as_ref();
        let (mut begin, mut end) = (String::new(), String::new());
        if let Some(run) = &self.run {
            let numbers = run.all.to_string().len();
            let _ = write!(begin, "[{:numbers$}/{}] {}: ", run.index, run.all, run.part);
            begin.push_str(&counted.map_or_else(|| run.what.clone(), |counted| counted.amount().line()));
        } else if let Some(counted) = counted {
            begin.push_str(&counted.amount().line());
        }
        if let Some(share) = counted.and_then(|counted| counted.amount().share()) {
            let _ = write!(end, " {}", bar(share));
        }
        if let Some(since) = self.run.as_ref().map(|run| run.begin).or(counted.map(|counted| counted.begin)) {
            let _ = write!(end, "  {}", clock(now - since));
        }
        if let Some(left) = self.time_left(now) {
            let _ = write!(end, ", about {} left", clock(left));
        }
        // The last column stays free: some terminals go to the next line there.
        let room = width.saturating_sub(1 + end.chars().count());
        if begin.chars().count() > room {
            begin = begin.chars().take(room.saturating_sub(3)).collect::<String>() + "...";
        }
        begin + &end
    }

    fn time_left(&self, now: Instant) -> Option<Duration> {
        if let Some(run) = &self.run {
            let (left, since) = run.left?;
            // What takes longer than the last time is at its end for a while.
            return left.checked_sub(now - since).filter(|left| left.as_secs() > 0);
        }
        let counted = self.counted.as_ref()?;
        let share = counted.amount().share().filter(|share| *share > 0.05)?;
        Some((now - counted.begin).mul_f64((1.0 - share) / share))
    }
}

fn event(event: &serde_json::Value) {
    terminal::print_event(event);
}

/// `[####------] 41 %`
fn bar(share: f64) -> String {
    const WIDTH: usize = 20;
    // A share is between nought and one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let (full, percent) = ((share * WIDTH as f64) as usize, (share * 100.0) as u32);
    format!("[{}{}] {percent:2} %", "#".repeat(full), "-".repeat(WIDTH - full.min(WIDTH)))
}

/// `0:32`, `1:02:03`
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(done: u64) -> Amount<'static> {
        Amount { what: "dumping the database", done, all: 1000 << 20, unit: Unit::Bytes }
    }

    fn run(display: &mut Display, now: Instant) {
        display.run = Some(Run {
            begin: now,
            index: 0,
            all: 137,
            part: String::new(),
            part_begin: now,
            made: 0,
            what: String::new(),
            left: None,
        });
    }

    #[test]
    fn the_line_fits_and_says_what_how_far_and_how_long() {
        let begin = Instant::now();
        let now = begin + Duration::from_secs(32);
        let mut display = Display { mode: ProgressMode::None, ..Display::default() };
        run(&mut display, begin);
        let step = ShownStep { index: 12, all: 137, part: "packages", what: "create package rabbitmq-server" };
        display.begins(step, Some(Duration::from_secs(102)), begin);
        assert_eq!(
            display.live_line(100, now),
            "[ 12/137] packages: create package rabbitmq-server  0:32, about 1:10 left"
        );
        assert_eq!(display.live_line(60, now), "[ 12/137] packages: create packag...  0:32, about 1:10 left");
        display.mode = ProgressMode::Bar;
        display.counted = Some(Counted {
            what: "fetching".into(),
            done: 41,
            all: 100,
            unit: Unit::Items,
            begin,
            told: 0,
            news: begin,
        });
        assert_eq!(
            display.live_line(100, now),
            "[ 12/137] packages: fetching: 41 of 100 [########------------] 41 %  0:32, about 1:10 left"
        );
        for width in 0..200 {
            assert!(display.live_line(width, now).chars().count() < width.max(60), "{width}");
        }
        // What it took the last time is over.
        assert!(!display.live_line(100, now + Duration::from_secs(100)).contains("left"));
    }

    #[test]
    fn what_is_left_of_an_amount_alone_follows_from_its_pace() {
        let begin = Instant::now();
        let mut display = Display { mode: ProgressMode::None, ..Display::default() };
        display.count(bytes(0), begin);
        assert_eq!(display.time_left(begin + Duration::from_secs(5)), None);
        display.count(bytes(250 << 20), begin + Duration::from_secs(10));
        let line = display.live_line(100, begin + Duration::from_secs(10));
        assert_eq!(line, "dumping the database: 250 of 1000 MiB [#####---------------] 25 %  0:10, about 0:30 left");
    }

    #[test]
    fn plain_lines_come_about_ten_times() {
        let lines = |unit, all: u64, by: u64| {
            let mut told = 0;
            (0..=all / by)
                .map(|number| Amount { what: "w", done: number * by, all, unit })
                .filter(|amount| {
                    let due = amount.done >= told + amount.step();
                    told = if due { amount.done } else { told };
                    due
                })
                .count()
        };
        assert_eq!(lines(Unit::Bytes, 1000 << 20, 1 << 20), 10);
        assert_eq!(lines(Unit::Bytes, 100 << 20, 1 << 20), 1);
        assert_eq!(lines(Unit::Items, 87, 1), 9);
    }

    #[test]
    fn a_clock_has_minutes_and_hours() {
        assert_eq!([7, 92, 3723].map(|seconds| clock(Duration::from_secs(seconds))), ["0:07", "1:32", "1:02:03"]);
    }
}
