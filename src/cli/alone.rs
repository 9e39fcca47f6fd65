//! Exchanges that this process does itself, where no daemon does them.

use std::path::Path;

use super::error::CommandError;
use super::registry;
use super::session::Session;
use crate::config::{Address, Config, Name};
use crate::daemon::Once;
use crate::engine::report::ExchangeReport;
use crate::engine::{Folder, Repair};

/// Who does exchanges, one after the other. A folder stays open for all of its peers, and a network, which only
/// devices need, until the end.
pub(crate) struct Alone<'a> {
    session: &'a Session,
    config: &'a Config,
    open: Option<(Name, Folder)>,
    once: Option<Once>,
}

impl<'a> Alone<'a> {
    /// Nothing is opened yet.
    pub(crate) fn new(session: &'a Session, config: &'a Config) -> Self {
        Self { session, config, open: None, once: None }
    }

    /// One exchange of the folder `name`, which is at `path`, with a peer of it.
    pub(crate) fn exchange(
        &mut self,
        name: &Name,
        path: &Path,
        peer: &Name,
        wait: bool,
    ) -> Result<ExchangeReport, CommandError> {
        let folder = match self.open.take() {
            Some((open, folder)) if open == *name => folder,
            _ => Folder::open(path, self.session.context_of(path))?,
        };
        let folder = &self.open.insert((name.clone(), folder)).1;
        let settings = &self.config.peers[peer];
        if matches!(settings.address, Address::Device(_)) {
            return Ok(once(self.session, &mut self.once)?.exchange(folder, name, peer, wait)?);
        }
        Ok(folder.exchange(&registry::target(peer, settings, Some(name))?, wait)?)
    }

    /// Asks a peer for what is lost in a folder that is under repair.
    pub(crate) fn ask(
        &mut self,
        repair: &mut Repair<'_>,
        folder: &Folder,
        name: &Name,
        peer: &Name,
    ) -> Result<(), CommandError> {
        let settings = &self.config.peers[peer];
        if matches!(settings.address, Address::Device(_)) {
            once(self.session, &mut self.once)?.ask(repair, folder, peer);
        } else {
            repair.ask(&registry::target(peer, settings, Some(name))?);
        }
        Ok(())
    }
}

/// The network, opened when it is first needed.
fn once<'a>(session: &Session, open: &'a mut Option<Once>) -> Result<&'a mut Once, CommandError> {
    let once = match open.take() {
        Some(once) => once,
        None => Once::open(&session.home()?, &session.context())?,
    };
    Ok(open.insert(once))
}
