//! Exchanges that this process does itself, where no daemon does them.

use std::path::Path;

use super::error::CommandError;
use super::registry;
use super::session::Session;
use crate::config::{Address, Config, Name};
use crate::daemon::Once;
use crate::engine::Folder;
use crate::engine::report::ExchangeReport;

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
            _ => Folder::open(path, self.session.context())?,
        };
        let folder = &self.open.insert((name.clone(), folder)).1;
        let settings = &self.config.peers[peer];
        if matches!(settings.address, Address::Device(_)) {
            let once = match self.once.take() {
                Some(once) => once,
                None => Once::open(&self.session.home()?, &self.session.context())?,
            };
            return Ok(self.once.insert(once).exchange(folder, name, peer, wait)?);
        }
        Ok(folder.exchange(&registry::target(peer, settings, Some(name))?, wait)?)
    }
}
