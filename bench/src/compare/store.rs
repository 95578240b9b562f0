//! The measurements on disk: a line each, written and synced as soon as it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::model::{Cell, Machine};
use super::plan::{Plan, Task, group_estimate_s};
use super::stillness::DISTURBED_PERCENT;

const FILE: &str = "cells.jsonl";

/// The first line: what the others belong to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) plan: String,
    pub(super) commit: String,
    pub(super) dirty: bool,
    pub(super) started: String,
    pub(super) machine: Machine,
    /// What is measured, so that a plan that means something else under the same name is noticed.
    pub(super) tasks: Vec<Task>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    file: File,
    pub(super) head: Head,
    pub(super) cells: Vec<Cell>,
}

impl Store {
    /// Begins in a folder that has no measurements.
    ///
    /// # Errors
    /// If it has some, or cannot be written.
    pub(super) fn create(dir: &Path, head: Head) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(FILE);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = match file {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                bail!("{} has measurements already: give --resume to go on with them, or another --out", dir.display())
            }
            file => file.with_context(|| format!("cannot make {}", path.display()))?,
        };
        let mut store = Self { file, head, cells: Vec::new() };
        store.append(&serde_json::to_string(&store.head)?)?;
        Ok(store)
    }

    /// Goes on with what a folder has, which must be of the same plan and sources. A last line that was cut short is dropped.
    ///
    /// # Errors
    /// If there is nothing to go on with, or it is of something else.
    pub(super) fn resume(dir: &Path, wanted: &Head) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let text = std::fs::read(&path)
            .with_context(|| format!("nothing to resume: cannot read {}; leave out --resume", path.display()))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let head = lines.next().with_context(|| format!("{} is empty: use another --out", path.display()))?;
        let head: Head =
            serde_json::from_slice(head).with_context(|| format!("the first line of {}", path.display()))?;
        same(&head, wanted).with_context(|| format!("cannot resume {}: use another --out", dir.display()))?;
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        let mut store = Self { file, head, cells: Vec::new() };
        for (index, line) in lines.enumerate() {
            let cell = serde_json::from_slice(line);
            store.keep(cell.with_context(|| format!("line {} of {}", index + 2, path.display()))?);
        }
        Ok(store)
    }

    /// Takes out of a plan what is measured.
    pub(super) fn remaining(&self, plan: &mut Plan) {
        let done: BTreeSet<_> = self.cells.iter().map(key).collect();
        plan.retain(|task| !done.contains(&task.key()));
    }

    /// The groups that the machine disturbed, the most disturbed first, as many of them as can be measured in that time.
    pub(super) fn disturbed(&self, groups: &[Vec<Task>], time: Duration) -> Vec<Vec<Task>> {
        let stood: BTreeMap<_, f64> = self.cells.iter().map(|cell| (key(cell), stood_percent(cell))).collect();
        let worst =
            |group: &[Task]| group.iter().filter_map(|task| stood.get(&task.key())).copied().fold(0.0, f64::max);
        let mut disturbed: Vec<_> = groups.iter().map(|group| (worst(group), group)).collect();
        disturbed.retain(|(percent, _)| *percent > DISTURBED_PERCENT);
        disturbed.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let mut left_s = time.as_secs_f64();
        let fits = disturbed.into_iter().map(|(_, group)| group.clone()).take_while(|group| {
            left_s -= group_estimate_s(group);
            left_s >= 0.0
        });
        fits.collect()
    }

    /// Adds a measurement; of one that was made before, the one that the machine disturbed less counts from now on.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn add(&mut self, cell: Cell) -> anyhow::Result<()> {
        self.append(&serde_json::to_string(&cell)?)?;
        self.keep(cell);
        Ok(())
    }

    fn keep(&mut self, mut cell: Cell) {
        let Some(before) = self.cells.iter_mut().find(|before| key(before) == key(&cell)) else {
            self.cells.push(cell);
            return;
        };
        let repeats = 1 + before.standstill.map_or(0, |stood| stood.repeats);
        if stood_percent(&cell) < stood_percent(before) {
            std::mem::swap(before, &mut cell);
        }
        if let Some(stood) = &mut before.standstill {
            stood.repeats = repeats;
        }
    }

    fn append(&mut self, line: &str) -> anyhow::Result<()> {
        debug_assert!(!line.contains('\n'), "JSON escapes line ends");
        let written = self.file.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("cannot write {FILE}"))
    }
}

fn key(cell: &Cell) -> (super::model::Workload, String, String, u32) {
    (cell.workload, cell.path.name.clone(), cell.peer.clone(), cell.round)
}

/// A cell of a time when nobody looked is as good as any.
fn stood_percent(cell: &Cell) -> f64 {
    cell.standstill.map_or(0.0, |stood| stood.percent)
}

fn same(head: &Head, wanted: &Head) -> anyhow::Result<()> {
    ensure!(head.plan == wanted.plan, "it is of the plan {}, this is {}", head.plan, wanted.plan);
    let said = |head: &Head| format!("{}{}", head.commit, if head.dirty { " with changes" } else { "" });
    ensure!(said(head) == said(wanted), "it is of commit {}, this is {}", said(head), said(wanted));
    ensure!(head.tasks == wanted.tasks, "its plan {} has other measurements than this one's", head.plan);
    ensure!(head.machine == wanted.machine, "it was measured on another machine or kernel");
    Ok(())
}

/// The folder of a comparison that was given none.
pub(super) fn default_dir(started: &str) -> PathBuf {
    let compact: String = started.chars().filter(char::is_ascii_alphanumeric).collect();
    PathBuf::from(format!("aetherflow-compare-{compact}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::{FILE, Head, Store};
    use crate::compare::args::PlanName;
    use crate::compare::model::{Cell, Machine, Outcome, Standstill};
    use crate::compare::plan::{Plan, Task};

    fn head(plan: &Plan) -> Head {
        let machine = Machine {
            processor: "made up".to_owned(),
            cores: 2,
            memory_bytes: 1,
            kernel: "made up".to_owned(),
            congestion_controls: vec!["cubic".to_owned()],
        };
        Head {
            plan: plan.name.to_owned(),
            commit: "abc".to_owned(),
            dirty: false,
            started: String::new(),
            machine,
            tasks: plan.tasks().cloned().collect(),
        }
    }

    fn failed(task: &Task) -> Cell {
        super::super::cell(task, Outcome::Failed("a \"reason\"\nof two lines".to_owned()))
    }

    #[test]
    fn what_is_measured_is_not_measured_again_and_a_torn_line_is() {
        let (dir, plan) = (tempfile::tempdir().unwrap(), Plan::new(PlanName::Tiny));
        let tasks: Vec<Task> = plan.tasks().cloned().collect();
        let mut store = Store::create(dir.path(), head(&plan)).unwrap();
        store.add(failed(&tasks[0])).unwrap();
        store.add(failed(&tasks[1])).unwrap();
        let torn = serde_json::to_string(&failed(&tasks[2])).unwrap();
        store.file.write_all(&torn.as_bytes()[..torn.len() / 2]).unwrap();
        let error = Store::create(dir.path(), head(&plan)).unwrap_err().to_string();
        assert!(error.contains("--resume"), "{error}");
        let mut store = Store::resume(dir.path(), &head(&plan)).unwrap();
        assert_eq!(store.cells, [failed(&tasks[0]), failed(&tasks[1])]);
        let mut left = plan.clone();
        store.remaining(&mut left);
        assert_eq!(left.tasks().cloned().collect::<Vec<_>>(), tasks[2..]);
        store.add(failed(&tasks[2])).unwrap();
        let again = Store::resume(dir.path(), &head(&plan)).unwrap();
        assert_eq!(again.cells, store.cells, "what follows a torn line is whole");
    }

    #[test]
    fn what_the_machine_disturbed_is_named_until_a_better_one_is_there() {
        let (dir, plan) = (tempfile::tempdir().unwrap(), Plan::new(PlanName::Quick));
        let mut store = Store::create(dir.path(), head(&plan)).unwrap();
        let stood = |percent| Some(Standstill { longest_ms: percent, percent, repeats: 0 });
        let add = |store: &mut Store, group: usize, percent| {
            for task in &plan.groups[group] {
                store.add(Cell { standstill: stood(percent), ..failed(task) }).unwrap();
            }
        };
        let disturbed = |store: &Store, seconds| store.disturbed(&plan.groups, Duration::from_secs(seconds));
        for (group, percent) in [0.0, 2.0, 0.4, 7.0].into_iter().enumerate() {
            add(&mut store, group, percent);
        }
        assert_eq!(disturbed(&store, 3600), [plan.groups[3].clone(), plan.groups[1].clone()], "the worst first");
        assert_eq!(disturbed(&store, 10), [plan.groups[3].clone()], "one takes about 8 s");
        assert!(disturbed(&store, 1).is_empty());
        // Worse than before, and better.
        add(&mut store, 3, 8.0);
        add(&mut store, 1, 0.1);
        for store in [store, Store::resume(dir.path(), &head(&plan)).unwrap()] {
            assert_eq!(disturbed(&store, 3600), [plan.groups[3].clone()]);
            let told = |group: usize| {
                let key = plan.groups[group][0].key();
                let of: Vec<&Cell> = store.cells.iter().filter(|cell| super::key(cell) == key).collect();
                assert_eq!(of.len(), 1);
                of[0].standstill.map(|stood| (stood.percent, stood.repeats)).unwrap()
            };
            assert_eq!([told(3), told(1), told(0)], [(7.0, 1), (0.1, 1), (0.0, 0)]);
        }
    }

    #[test]
    fn another_plan_commit_or_machine_is_refused() {
        type Change = fn(&mut Head);
        let (dir, plan) = (tempfile::tempdir().unwrap(), Plan::new(PlanName::Tiny));
        let head = head(&plan);
        let nothing = Store::resume(dir.path(), &head).unwrap_err();
        assert!(format!("{nothing:#}").contains("nothing to resume"), "{nothing:#}");
        Store::create(dir.path(), head.clone()).unwrap();
        let cases: [(&str, Change); 5] = [
            ("this is quick", |head| head.plan = "quick".to_owned()),
            ("of commit abc, this is def", |head| head.commit = "def".to_owned()),
            ("this is abc with changes", |head| head.dirty = true),
            ("other measurements", |head| drop(head.tasks.pop())),
            ("another machine", |head| head.machine.cores = 3),
        ];
        for (message, change) in cases {
            let mut wanted = head.clone();
            change(&mut wanted);
            let error = format!("{:#}", Store::resume(dir.path(), &wanted).unwrap_err());
            assert!(error.contains(message) && error.contains("another --out"), "{error}");
        }
        std::fs::write(dir.path().join(FILE), "not JSON\n").unwrap();
        assert!(Store::resume(dir.path(), &head).is_err());
    }
}
