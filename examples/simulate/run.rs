//! One run of a plan, and the shortest plan that still fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::plan::Plan;
use super::world::{Violation, World};

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    /// How often something really went wrong in it.
    pub(crate) troubles: u64,
    pub(crate) log: Vec<String>,
    /// The same for runs in which the same happened.
    pub(crate) digest: String,
}

/// Runs a plan in a folder that is empty before and gone afterwards.
pub(crate) fn run(dir: &Path, plan: &Plan) -> Outcome {
    let mut outcome = Outcome { violation: None, troubles: 0, log: Vec::new(), digest: String::new() };
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(dir, plan)?;
        let result = plan.steps.iter().try_for_each(|step| world.take(step)).and_then(|()| world.settle(plan));
        outcome.troubles = world.troubles;
        outcome.log = std::mem::take(&mut world.log);
        result
    }));
    outcome.violation = match ran {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("panicked: {}", text.unwrap_or_default()))
        }
    };
    let text = outcome.log.join("\n");
    let id = foldersync::store::object_id(foldersync::store::ObjectKind::Blob, text.as_bytes());
    outcome.digest = id.to_string();
    outcome
}

/// The plan without the steps that it fails without.
pub(crate) fn shrink(dir: &Path, plan: &Plan) -> Plan {
    let mut best = plan.clone();
    let mut length = best.steps.len() / 2;
    while length > 0 {
        let mut at = 0;
        while at < best.steps.len() {
            let mut shorter = best.clone();
            shorter.steps.drain(at..(at + length).min(best.steps.len()));
            if run(dir, &shorter).violation.is_some() {
                best = shorter;
            } else {
                at += length;
            }
        }
        length /= 2;
    }
    best
}
