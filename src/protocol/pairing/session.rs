//! The two sides of a pairing, as state machines. What comes out of order ends it; nothing is guessed.

use std::collections::VecDeque;

use super::error::PairingError;
use super::offer::{Accepted, Grant};
use super::secret::{Channel, Proof, Role, Secret, SecretHash};
use super::wire::{self, Message, Reader};
use crate::id::FolderId;
use crate::protocol::Party;

/// The version that is spoken here.
pub const VERSION: u16 = 1;

/// Something that the driver is to do, or to know.
#[derive(Debug)]
pub enum Event {
    /// At the sharer: somebody shows a proof. Look for the offer; then `welcome` or `refuse`.
    Knocked(Proof),
    /// At the joiner: the sharer has proved itself, and this is what it offers. Ask the person; then `agree` or `cancel`.
    Welcomed(Welcome),
    /// At the sharer: the joiner's name. Ask the person; then `agree` or `cancel`.
    Named(String),
    /// Both agree. Pin the other's key durably; then `done`.
    Agreed,
    /// Both sides have pinned each other. It is over.
    Paired,
}

/// What the sharer offers, once it has proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The folder.
    pub folder: FolderId,
    /// The folder's name there.
    pub folder_name: String,
    /// The name of the sharer's device.
    pub device_name: String,
    /// What this side may do with the folder.
    pub grant: Grant,
}

/// How far a side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The other side has not shown who it is.
    Unknown,
    /// It has.
    Met,
    Agreed,
    Done,
}

/// What both roles have in common: frames in and out, and the end of the conversation.
#[derive(Debug)]
struct Talk {
    reader: Reader,
    out: Vec<u8>,
    events: VecDeque<Event>,
    ours: Step,
    theirs: Step,
    over: Option<PairingError>,
}

impl Talk {
    fn new() -> Self {
        Self {
            reader: Reader::default(),
            out: Vec::new(),
            events: VecDeque::new(),
            ours: Step::Unknown,
            theirs: Step::Unknown,
            over: None,
        }
    }

    fn say(&mut self, message: &Message) {
        wire::encode(message, &mut self.out);
    }

    /// Ends it, and tells the other side if it is there to be told.
    fn fail(&mut self, error: PairingError) -> PairingError {
        if self.over.is_none() && self.theirs < Step::Done {
            if let Some(refusal) = error.refusal() {
                self.say(&Message::Refuse(refusal));
            }
            self.over = Some(error.clone());
            self.events.clear();
        }
        error
    }

    const fn check(&self) -> Result<(), &PairingError> {
        match &self.over {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// A message of the end: those that both sides send.
    fn hear(&mut self, message: &Message) -> Result<(), PairingError> {
        match (message, self.theirs) {
            (Message::Agree, Step::Met) => {
                self.theirs = Step::Agreed;
                self.both_agreed();
            }
            (Message::Done, Step::Agreed) if self.ours >= Step::Agreed => {
                self.theirs = Step::Done;
                self.both_done();
            }
            (Message::Refuse(refusal), _) => {
                // Who was refused does not answer.
                self.over = Some(refusal.heard());
                self.events.clear();
                return Err(refusal.heard());
            }
            _ => return Err(PairingError::OutOfOrder(message.name())),
        }
        Ok(())
    }

    fn agree(&mut self) -> Result<(), PairingError> {
        self.check().map_err(Clone::clone)?;
        if self.ours != Step::Met || self.theirs < Step::Met {
            return Err(PairingError::NotDue("agree"));
        }
        self.ours = Step::Agreed;
        self.say(&Message::Agree);
        self.both_agreed();
        Ok(())
    }

    fn both_agreed(&mut self) {
        if self.ours == Step::Agreed && self.theirs == Step::Agreed {
            self.events.push_back(Event::Agreed);
        }
    }

    fn done(&mut self) -> Result<(), PairingError> {
        self.check().map_err(Clone::clone)?;
        if self.ours != Step::Agreed || self.theirs < Step::Agreed {
            return Err(PairingError::NotDue("be done"));
        }
        self.ours = Step::Done;
        self.say(&Message::Done);
        self.both_done();
        Ok(())
    }

    fn both_done(&mut self) {
        if self.ours == Step::Done && self.theirs == Step::Done {
            self.events.push_back(Event::Paired);
        }
    }

    fn end(&mut self) -> Result<(), PairingError> {
        self.check().map_err(Clone::clone)?;
        if self.theirs == Step::Done { Ok(()) } else { Err(self.fail(PairingError::Cut)) }
    }
}

macro_rules! side {
    ($name:ident) => {
        impl $name {
            /// Takes what was read. An error ends the pairing; what is to be told the other side of it is in the output.
            pub fn receive(&mut self, mut input: &[u8]) -> Result<(), PairingError> {
                self.talk.check().map_err(Clone::clone)?;
                // What comes after the end is nobody's.
                while self.talk.theirs != Step::Done {
                    let read = self.talk.reader.read(&mut input);
                    let heard = match read {
                        Ok(Some(message)) => self.hear(message),
                        Ok(None) => return Ok(()),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = heard {
                        return Err(self.talk.fail(error));
                    }
                }
                Ok(())
            }

            /// The stream has ended: an error unless the other side was done.
            pub fn end(&mut self) -> Result<(), PairingError> {
                self.talk.end()
            }

            /// What is to be done next; `None` until more was read.
            pub fn next_event(&mut self) -> Option<Event> {
                self.talk.events.pop_front()
            }

            /// What is to be written; also after an error.
            pub fn take_output(&mut self) -> Vec<u8> {
                std::mem::take(&mut self.talk.out)
            }

            /// The person agrees, having been shown the names.
            pub fn agree(&mut self) -> Result<(), PairingError> {
                self.talk.agree()
            }

            /// The other's key is pinned durably.
            pub fn done(&mut self) -> Result<(), PairingError> {
                self.talk.done()
            }

            /// The person does not agree, or gives up.
            pub fn cancel(&mut self) {
                self.talk.fail(PairingError::Cancelled(Party::Us));
            }

            /// This side cannot go on.
            pub fn give_up(&mut self) {
                self.talk.fail(PairingError::Internal);
            }

            /// Whether both sides are done.
            pub const fn is_paired(&self) -> bool {
                matches!((self.talk.ours, self.talk.theirs), (Step::Done, Step::Done))
            }
        }
    };
}

/// The side that was given the ticket.
#[derive(Debug)]
pub struct Joiner {
    talk: Talk,
    secret: SecretHash,
    channel: Channel,
    device_name: String,
}

side!(Joiner);

impl Joiner {
    /// Begins: the output holds the first message. `device_name` is what this device calls itself.
    pub fn new(secret: &Secret, channel: Channel, device_name: String) -> Result<Self, PairingError> {
        if !wire::is_name(&device_name) {
            return Err(PairingError::BadName("device's name"));
        }
        let secret = secret.hash();
        let mut talk = Talk::new();
        let proof = secret.proof(Role::Joiner, &channel);
        talk.say(&Message::Knock { version_min: VERSION, version_max: VERSION, proof });
        Ok(Self { talk, secret, channel, device_name })
    }

    fn hear(&mut self, message: Message) -> Result<(), PairingError> {
        let Message::Welcome { version, proof, folder, folder_name, device_name, grant } = message else {
            return self.talk.hear(&message);
        };
        if self.talk.theirs != Step::Unknown {
            return Err(PairingError::OutOfOrder("Welcome"));
        }
        if !self.secret.is_proof(Role::Sharer, &self.channel, &proof) {
            return Err(PairingError::NotTheSharer);
        }
        if version != VERSION {
            return Err(PairingError::Version);
        }
        self.talk.theirs = Step::Met;
        self.talk.ours = Step::Met;
        self.talk.say(&Message::Name { device_name: self.device_name.clone() });
        self.talk.events.push_back(Event::Welcomed(Welcome { folder, folder_name, device_name, grant }));
        Ok(())
    }
}

/// The side that made the ticket.
#[derive(Debug)]
pub struct Sharer {
    talk: Talk,
    channel: Channel,
    knocked: bool,
}

side!(Sharer);

impl Sharer {
    /// Waits for a knock.
    pub fn new(channel: Channel) -> Self {
        Self { talk: Talk::new(), channel, knocked: false }
    }

    fn hear(&mut self, message: Message) -> Result<(), PairingError> {
        match message {
            Message::Knock { version_min, version_max, proof } if !self.knocked => {
                self.knocked = true;
                if !(version_min..=version_max).contains(&VERSION) {
                    return Err(PairingError::Version);
                }
                let proof = Proof { bytes: proof, channel: self.channel.clone() };
                self.talk.events.push_back(Event::Knocked(proof));
                Ok(())
            }
            Message::Name { device_name } if self.talk.ours == Step::Met && self.talk.theirs == Step::Unknown => {
                self.talk.theirs = Step::Met;
                self.talk.events.push_back(Event::Named(device_name));
                Ok(())
            }
            message => self.talk.hear(&message),
        }
    }

    /// Answers a knock whose offer was found, and durably burnt. `device_name` is what this device calls itself.
    pub fn welcome(&mut self, accepted: Accepted, device_name: &str) -> Result<(), PairingError> {
        self.talk.check().map_err(Clone::clone)?;
        if !self.knocked || self.talk.ours != Step::Unknown {
            return Err(PairingError::NotDue("welcome"));
        }
        for (what, name) in [("device's name", device_name), ("folder's name", &accepted.folder_name)] {
            if !wire::is_name(name) {
                return Err(self.talk.fail(PairingError::BadName(what)));
            }
        }
        let Accepted { secret, channel, folder, folder_name, grant } = accepted;
        // What was accepted elsewhere proves nothing here.
        let proof = secret.proof(Role::Sharer, &channel);
        if !secret.is_proof(Role::Sharer, &self.channel, &proof) {
            return Err(self.talk.fail(PairingError::Internal));
        }
        self.talk.ours = Step::Met;
        let device_name = device_name.to_owned();
        self.talk.say(&Message::Welcome { version: VERSION, proof, folder, folder_name, device_name, grant });
        Ok(())
    }

    /// Answers a knock for which no offer was found, or one that does not serve any more.
    pub fn refuse(&mut self, error: PairingError) {
        self.talk.fail(error);
    }
}
