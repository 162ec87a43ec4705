//! How much of a sweep a run of the tests takes: all of it with `tests/run --thorough`, and otherwise every k-th point,
//! beginning where the commit says, so that one landing after the other walks through all of them.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::io::Write;

/// Whether everything was asked for.
pub fn is_thorough() -> bool {
    std::env::var_os("CAMCOPS_TEST_TIER").is_some_and(|tier| tier == "thorough")
}

/// Which points of a sweep this run takes.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// The first one, from nought.
    pub first: u32,
    /// From one to the next.
    pub step: u32,
}

/// One in so many, or all of them where everything was asked for.
pub fn one_in(step: u32) -> Share {
    if is_thorough() {
        return Share { first: 0, step: 1 };
    }
    let turn = std::env::var("CAMCOPS_TEST_TURN").ok();
    let turn: u32 = turn.and_then(|turn| turn.parse().ok()).unwrap_or(0);
    Share { first: turn % step, step }
}

impl Share {
    /// The part of a list that this run takes.
    pub fn of<T>(self, all: Vec<T>) -> Vec<T> {
        let taken = all.into_iter().skip(self.first as usize);
        taken.step_by(self.step as usize).collect()
    }
}

/// Says that a test can't run here, so that the closing line counts it; in continuous integration that is a failure.
pub fn leave_out(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "can't run here: {why}");
    eprintln!("left out: {why}");
    let Some(list) = std::env::var_os("CAMCOPS_TEST_LEFT_OUT") else {
        return;
    };
    let mut list = std::fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    // One call, one line: others write to it too.
    list.write_all(format!("{test}: {why}\n").as_bytes()).unwrap();
}
