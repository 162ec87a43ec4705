//! How long changes took: what a run needs to say how long is still to come.

use crate::resource::{Change, Resource, State};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is done to a resource, as far as it matters for how long that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Make,
    Change,
    Undo,
}

impl Way {
    fn of(change: &Change, undo: bool) -> Way {
        match change.before {
            _ if undo => Way::Undo,
            State::Absent => Way::Make,
            State::Present(_) => Way::Change,
        }
    }
}

/// How long the changes of one kind took, together.
#[derive(Debug, Default, Clone, Copy)]
struct TimeSum {
    milliseconds: u64,
    number: u64,
}

/// How long each change took the last time, and those of one kind on the average.
#[derive(Debug, Default)]
pub(crate) struct Times {
    last: BTreeMap<(Resource, Way), u64>,
    kinds: BTreeMap<(String, Way), TimeSum>,
}

impl Times {
    pub(super) fn note(&mut self, change: &Change, undo: bool, milliseconds: u64) {
        let way = Way::of(change, undo);
        let sum = self.kinds.entry((change.resource.kind().to_owned(), way)).or_default();
        (sum.milliseconds, sum.number) = (sum.milliseconds + milliseconds, sum.number + 1);
        self.last.insert((change.resource.clone(), way), milliseconds);
    }

    /// How long these may take; nothing where that is not known of one of them that may take long.
    pub(crate) fn expect<'a>(&self, changes: impl Iterator<Item = (&'a Change, bool)>) -> Option<Duration> {
        let mut all = 0;
        for (change, undo) in changes {
            if !is_timed(change) {
                continue;
            }
            let way = Way::of(change, undo);
            let last = self.last.get(&(change.resource.clone(), way)).copied();
            let usual =
                || self.kinds.get(&(change.resource.kind().to_owned(), way)).map(|sum| sum.milliseconds / sum.number);
            all += last.or_else(usual)?;
        }
        Some(Duration::from_millis(all))
    }
}

/// Whether a change may take long enough to be worth its time in the journal: files do not.
fn is_timed(change: &Change) -> bool {
    change.resource.needs_live_machine()
}

/// The clocks of what is under way. Packages are begun together, and share the time that they take.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    begun: BTreeMap<u64, Instant>,
    together: u32,
}

impl Clocks {
    pub(super) fn begin(&mut self, number: u64) {
        self.begun.insert(number, Instant::now());
        self.together = u32::try_from(self.begun.len()).unwrap_or(u32::MAX);
    }

    /// The milliseconds that a change took, where that is worth knowing.
    pub(super) fn end(&mut self, number: u64, change: &Change) -> Option<u64> {
        let took = self.begun.remove(&number)?.elapsed() / self.together.max(1);
        is_timed(change).then(|| u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(resource: Resource) -> Change {
        Change { resource, before: State::Absent, after: State::default() }
    }

    #[test]
    fn what_is_known_of_each_is_put_together_and_a_file_costs_nothing() {
        let (apache, redis) = (change(Resource::Package("apache2".into())), change(Resource::Package("redis".into())));
        let (file, tables) = (change(Resource::File("/a".into())), change(Resource::Tables("camcops".into())));
        let mut times = Times::default();
        times.note(&apache, false, 3000);
        let expect = |times: &Times, all: &[&Change]| times.expect(all.iter().map(|one| (*one, false)));
        assert_eq!(expect(&times, &[&apache, &file]), Some(Duration::from_secs(3)));
        // Another one of its kind takes about as long; of another kind nothing is known.
        assert_eq!(expect(&times, &[&apache, &redis]), Some(Duration::from_secs(6)));
        assert_eq!(expect(&times, &[&apache, &tables]), None);
        assert_eq!(times.expect([(&apache, true)].into_iter()), None);
        times.note(&apache, false, 1000);
        assert_eq!(expect(&times, &[&apache]), Some(Duration::from_secs(1)));
        assert_eq!(expect(&times, &[&redis]), Some(Duration::from_secs(2)));
    }
}
