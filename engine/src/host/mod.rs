//! Many groups on one node, as a value beside the engine: it routes what comes to the group it is
//! for, knows whose deadline is next, and watches the nodes that they share.
//!
//! Between two nodes there is one connection for all their groups, and one heartbeat, the *beat*,
//! whatever the groups do. By it a node is found dead, or restarted, once for all of them; that is
//! what lets a quiet group hibernate ([`Tuning::hibernate_after`](crate::Tuning)). Knows no terms and
//! no logs. Invariant: an engine is told of links and messages as if it had a connection of its own;
//! nothing it decides rests on how truly the beats say who lives.

mod beat;
mod pair;
#[cfg(test)]
mod tests;

use crate::{
    action::Action,
    codec,
    contract::Core,
    event::Event,
    membership::{Member, Membership},
    status::Status,
    types::{ClusterId, GroupId, Instant, NodeId, Timestamp, earliest},
    wall::WallClock,
};
use beat::Beat;
use bytes::Bytes;
use pair::Pair;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
    sync::Arc,
    time::Duration,
};

/// Whether this is a host's own message, for a trace.
#[doc(hidden)]
#[must_use]
pub fn is_beat(bytes: &[u8]) -> bool {
    Beat::is_one(bytes)
}

/// A heartbeat between nodes, read and written again, if it is one.
#[cfg(any(test, fuzzing))]
pub(crate) fn beat_again(bytes: &[u8]) -> Option<Bytes> {
    Beat::decode(bytes).map(|beat| beat.encode())
}

/// What a host is told about itself. Fixed for its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// The cluster that all its groups belong to.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Names this life of the process: drawn anew at each start. By it others notice a restart that
    /// no link told them of.
    pub life: u64,
    /// How often each connected node is sent a beat, whatever the groups do.
    pub heartbeat: Duration,
    /// A node that was not heard of for so long is taken for dead, connected or not. At least two
    /// heartbeats; the groups' least election timeout is a good choice.
    pub silence_max: Duration,
}

impl HostConfig {
    /// Checks what the values must hold.
    pub fn validate(&self) -> Result<(), HostError> {
        if self.heartbeat.is_zero() || self.silence_max < self.heartbeat.saturating_mul(2) {
            return Err(HostError::SilenceNotAboveHeartbeat);
        }
        Ok(())
    }
}

/// What a driver tells a host. Exhaustive on purpose, like [`Event`].
#[derive(Clone, PartialEq, Debug)]
pub enum HostEvent {
    /// What happened to one group: all but messages and links, which are the node's. For a group
    /// that is not here (it was removed a moment ago) it is dropped.
    Group(GroupId, Event),
    /// A whole message, for whichever group, or for the host itself.
    Received {
        /// The node on the other end, as the driver's handshake established it.
        from: NodeId,
        /// As [`HostAction`] gave it: head, then body.
        bytes: Bytes,
    },
    /// The connection with a node changed.
    Link {
        /// The node at the other end.
        peer: NodeId,
        /// Whether it stands.
        up: bool,
    },
    /// The wall clock. Each group is told as soon as anything happens to it ([`Event::time`]).
    Time(Timestamp),
}

/// What a host asks of a driver.
#[derive(Clone, PartialEq, Debug)]
pub enum HostAction {
    /// What a group's engine wants, as it said it; [`Action::Members`] is contained in
    /// [`Connect`](Self::Connect). After [`Action::Halt`] the group is still listed, until it is
    /// [removed](Host::remove).
    Group(GroupId, Action),
    /// The host's own message. May be lost.
    Beat {
        /// The receiver.
        to: NodeId,
        /// All of it.
        bytes: Bytes,
    },
    /// Whom to be connected with, from now on: every member of every group, once, as voters. Where
    /// groups differ about an address, the last that was told.
    Connect(Arc<Membership>),
}

/// Why a host does not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HostError {
    /// There is a group of this id.
    Exists(GroupId),
    /// There is none.
    Unknown(GroupId),
    /// `silence_max` is less than two heartbeats.
    SilenceNotAboveHeartbeat,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(group) => write!(f, "group {group} is here already"),
            Self::Unknown(group) => write!(f, "there is no group {group} on this node"),
            Self::SilenceNotAboveHeartbeat => f.write_str(
                "the silence after which a node is taken for dead must be at least two heartbeats",
            ),
        }
    }
}

impl std::error::Error for HostError {}

/// What a host has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct HostCounters {
    /// Messages for groups that are not here, or that name no group.
    pub unroutable: u64,
    /// Beats that were sent.
    pub beats: u64,
    /// Nodes taken for dead because they were silent, though connected.
    pub silences: u64,
    /// Restarts of nodes that no link told of.
    pub unseen_restarts: u64,
    /// Times that groups of a node were told to ask for their leaders, as it gave up a group.
    pub departures_seen: u64,
}

/// One group and what the host keeps for it.
#[derive(Clone, Debug)]
struct Group<E> {
    core: E,
    /// As it stands in `deadlines`.
    deadline: Option<Instant>,
    /// The other members, as they were said last.
    peers: Vec<NodeId>,
    has_halted: bool,
    /// Which telling of the time it has heard.
    told: Option<Instant>,
}

impl<E> Group<E> {
    /// Whether links with this node are its affair. Who joins knows nobody yet.
    fn concerns(&self, peer: NodeId) -> bool {
        !self.has_halted && (self.peers.is_empty() || self.peers.contains(&peer))
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Host<E = crate::Engine> {
    config: HostConfig,
    now: Instant,
    groups: BTreeMap<GroupId, Group<E>>,
    /// The groups that have one.
    deadlines: BTreeSet<(Instant, GroupId)>,
    pairs: BTreeMap<NodeId, Pair>,
    /// How many groups ended here in this life.
    departures: u64,
    beat_at: Option<Instant>,
    wall: WallClock,
    /// It was told of that in this call.
    is_time_new: bool,
    /// What each group is to be told in this call.
    pending: BTreeMap<GroupId, Vec<Event>>,
    /// The nodes on which groups ended, as this call heard.
    departed: BTreeSet<NodeId>,
    scratch: Vec<Action>,
    /// Room for the events of the next group that is told any.
    spare: Vec<Event>,
    /// The groups whose engines were called by the last `handle`.
    touched: Vec<GroupId>,
    /// The group whose engine is being called.
    driving: Option<GroupId>,
    is_membership_news: bool,
    counters: HostCounters,
}

impl<E: Core> Host<E> {
    /// A node without groups.
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        config.validate()?;
        Ok(Self {
            config,
            now: Instant::default(),
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            pairs: BTreeMap::new(),
            departures: 0,
            beat_at: None,
            wall: WallClock::UNKNOWN,
            is_time_new: false,
            pending: BTreeMap::new(),
            departed: BTreeSet::new(),
            scratch: Vec::new(),
            spare: Vec::new(),
            touched: Vec::new(),
            driving: None,
            is_membership_news: false,
            counters: HostCounters::default(),
        })
    }

    // ---- groups ------------------------------------------------------------------------------

    /// Takes in a group, whose engine has seen no event: the first that is told to it must be
    /// [`Event::Start`]. Other groups go on meanwhile.
    ///
    /// What was said in one group is believed in every later one of its id, which nothing but its id
    /// names: the id of a group that was removed must not be [formatted](crate::Start::Format) again.
    pub fn create(&mut self, group: GroupId, core: E) -> Result<(), HostError> {
        if self.groups.contains_key(&group) {
            return Err(HostError::Exists(group));
        }
        let (peers, has_halted) = (Vec::new(), false);
        let fresh = Group { core, deadline: None, peers, has_halted, told: None };
        self.groups.insert(group, fresh);
        Ok(())
    }

    /// Lets a group go, halted or not, and hands back its engine. To end it in good order, tell it
    /// [`Event::Stop`] first and await its [`Action::Halt`]. Those whom its members shared with no
    /// other group are not connected with any more: the next call says so.
    pub fn remove(&mut self, group: GroupId) -> Result<E, HostError> {
        let gone = self.groups.remove(&group).ok_or(HostError::Unknown(group))?;
        self.driving = self.driving.filter(|driving| *driving != group);
        if let Some(at) = gone.deadline {
            self.deadlines.remove(&(at, group));
        }
        self.departures += u64::from(!gone.has_halted);
        self.pending.remove(&group);
        self.is_membership_news = true;
        Ok(gone.core)
    }

    /// The groups that are here, in order of their ids.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// A look at a group.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<Status> {
        self.groups.get(&group).map(|group| group.core.status())
    }

    /// A group's engine, to be looked at.
    #[doc(hidden)]
    #[must_use]
    pub fn core(&self, group: GroupId) -> Option<&E> {
        self.groups.get(&group).map(|group| &group.core)
    }

    /// The groups whose engines the last [`handle`](Self::handle) called, for an oracle.
    #[doc(hidden)]
    #[must_use]
    pub fn touched(&self) -> &[GroupId] {
        &self.touched
    }

    /// The group whose engine panicked, if that is how the last [`handle`](Self::handle) ended. Who
    /// caught the panic [removes](Self::remove) that group, of which no action was told that was not
    /// legal, and calls `handle` again without events: the other groups hear what they were to be
    /// told. `None` after a panic: no engine was at fault, and nothing can be said of the host.
    #[must_use]
    pub const fn interrupted(&self) -> Option<GroupId> {
        self.driving
    }

    /// What was counted in this life.
    #[must_use]
    pub const fn counters(&self) -> HostCounters {
        self.counters
    }

    /// Whether a node is connected and was heard of.
    #[must_use]
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.pairs.get(&peer).is_some_and(Pair::is_up)
    }

    // ---- the loop ----------------------------------------------------------------------------

    /// When `handle` must be called if nothing happens before; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        earliest([self.deadlines.first().map(|(at, _)| *at), self.beat_at])
    }

    /// Tells each group what happened to it, lets it settle once, and appends what is to be done.
    /// The actions of one group lie together, in the order it said them.
    pub fn handle(
        &mut self,
        now: Instant,
        events: impl IntoIterator<Item = HostEvent>,
        actions: &mut Vec<HostAction>,
    ) {
        self.now = self.now.max(now);
        self.touched.clear();
        self.driving = None;
        self.is_time_new = false;
        for event in events {
            self.on_event(event);
        }
        while let Some(peer) = self.departed.pop_first() {
            self.ask_for_leaders_on(peer);
        }
        self.watch(actions);
        while let Some(&(at, group)) = self.deadlines.first()
            && at <= self.now
        {
            self.deadlines.remove(&(at, group));
            if let Some(due) = self.groups.get_mut(&group) {
                due.deadline = None;
            }
            self.pending.entry(group).or_default();
        }
        while let Some((group, events)) = self.pending.pop_first() {
            self.drive(group, events, actions);
        }
        self.connect(actions);
    }

    fn on_event(&mut self, event: HostEvent) {
        match event {
            HostEvent::Group(group, event) => self.tell(group, event),
            HostEvent::Received { from, bytes } => self.on_received(from, bytes),
            HostEvent::Time(time) => {
                self.wall.set(time, self.now);
                self.is_time_new = true;
            }
            HostEvent::Link { peer, up } => {
                let was_up = self.is_up(peer);
                self.pairs.entry(peer).or_default().on_link(up, self.now);
                // A new connection in place of one that stood: what was on its way may be lost.
                if up && was_up {
                    self.tell_link(peer, false);
                }
                if up || was_up {
                    self.tell_link(peer, up);
                }
                // A guest is known as long as it is there.
                self.pairs.retain(|id, pair| *id != peer || pair.is_member || up);
            }
        }
    }

    fn tell(&mut self, group: GroupId, event: Event) {
        if self.groups.contains_key(&group) {
            let pending = self.pending.entry(group);
            pending.or_insert_with(|| mem::take(&mut self.spare)).push(event);
        }
    }

    fn on_received(&mut self, from: NodeId, bytes: Bytes) {
        if let Some(pair) = self.pairs.get_mut(&from) {
            let was_up = pair.is_up();
            pair.on_heard(self.now);
            if !was_up && pair.is_up() {
                self.tell_link(from, true);
            }
        }
        if Beat::is_one(&bytes) {
            return match Beat::decode(&bytes) {
                Some(beat) => self.on_beat(from, &beat),
                None => self.counters.unroutable += 1,
            };
        }
        let mut group = codec::group_of(&bytes).unwrap_or_default();
        if cfg!(lakebed_break = "route_to_the_next_group") {
            group = self.groups.range(GroupId(group.0 + 1)..).next().map_or(group, |next| *next.0);
        }
        if self.groups.contains_key(&group) {
            self.tell(group, Event::Received { from, bytes });
        } else {
            self.counters.unroutable += 1;
        }
    }

    /// The way to a node changed: all groups that it is a member of are told.
    fn tell_link(&mut self, peer: NodeId, up: bool) {
        let concerned = self.groups.iter().filter(|(_, group)| group.concerns(peer));
        for (group, _) in concerned {
            self.pending.entry(*group).or_default().push(Event::Link { peer, up });
        }
    }

    /// A group's engine handles its events; what it says is passed on.
    fn drive(&mut self, id: GroupId, mut events: Vec<Event>, actions: &mut Vec<HostAction>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        self.touched.push(id);
        let mut scratch = mem::take(&mut self.scratch);
        self.driving = Some(id);
        let time = self.wall.at(self.now).filter(|_| group.told != self.wall.told());
        group.told = self.wall.told();
        if let Some(time) = time {
            // What was heard in an earlier call is older than what these tell. Nothing comes before the start.
            let starts = matches!(events.first(), Some(Event::Start(_)));
            let at = if self.is_time_new { events.len() } else { usize::from(starts) };
            events.insert(at, Event::time(time));
        }
        group.core.handle(self.now, events.drain(..), &mut scratch);
        let deadline = group.core.deadline();
        self.driving = None;
        self.spare = events;
        if group.deadline != deadline {
            if let Some(before) = mem::replace(&mut group.deadline, deadline) {
                self.deadlines.remove(&(before, id));
            }
            self.deadlines.extend(deadline.map(|at| (at, id)));
        }
        for action in scratch.drain(..) {
            match action {
                Action::Members(members) => self.on_members(id, &members),
                Action::Halt(_) => {
                    self.on_halt(id);
                    actions.push(HostAction::Group(id, action));
                }
                action => actions.push(HostAction::Group(id, action)),
            }
        }
        self.scratch = scratch;
    }

    /// A group says who its members are. Of those it did not know it has heard no link yet; of those that are
    /// none any more it will hear none, so they are gone for it.
    fn on_members(&mut self, id: GroupId, members: &Membership) {
        let own = self.config.node;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let others = members.members().filter(|member| member.id != own);
        let mut peers = Vec::new();
        for Member { id: peer, address, .. } in others {
            let pair = self.pairs.entry(*peer).or_default();
            if !address.is_empty() {
                pair.address = address.clone();
            }
            if !group.peers.contains(peer)
                && let Some(up) = pair.told()
            {
                let event = Event::Link { peer: *peer, up };
                self.pending.entry(id).or_default().push(event);
            }
            peers.push(*peer);
        }
        for (&peer, pair) in &self.pairs {
            if pair.told() == Some(true) && group.concerns(peer) && !peers.contains(&peer) {
                self.pending.entry(id).or_default().push(Event::Link { peer, up: false });
            }
        }
        group.peers = peers;
        self.is_membership_news = true;
    }

    fn on_halt(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.has_halted = true;
            self.departures += 1;
            self.is_membership_news = true;
        }
    }

    /// Says whom to be connected with, if that changed.
    fn connect(&mut self, actions: &mut Vec<HostAction>) {
        if !mem::take(&mut self.is_membership_news) {
            return;
        }
        let living = || self.groups.values().filter(|group| !group.has_halted);
        let wanted: BTreeSet<_> = living().flat_map(|group| &group.peers).copied().collect();
        // A guest is not dialled, and stays as long as its connection does.
        self.pairs.retain(|peer, pair| {
            pair.is_member = wanted.contains(peer);
            pair.is_member || pair.is_connected()
        });
        let members = self.pairs.iter().filter(|(_, pair)| pair.is_member);
        let member = |(id, pair): (&NodeId, &Pair)| Member {
            id: *id,
            incarnation: 0,
            address: pair.address.clone(),
        };
        actions.push(HostAction::Connect(Arc::new(Membership::of(members.map(member)))));
        self.schedule_beat();
    }

    // ---- nodes -------------------------------------------------------------------------------

    fn schedule_beat(&mut self) {
        let is_wanted = self.pairs.values().any(Pair::is_connected);
        self.beat_at = is_wanted.then(|| {
            let due = self.now.after(self.config.heartbeat);
            self.beat_at.map_or(self.now, |at| at.min(due))
        });
    }

    /// Who was silent for too long, and what is to be said to the others.
    fn watch(&mut self, actions: &mut Vec<HostAction>) {
        if self.beat_at.is_none() {
            self.schedule_beat();
        }
        if self.beat_at.is_none_or(|at| self.now < at) {
            return;
        }
        let (now, silence_max) = (self.now, self.config.silence_max);
        let departures =
            if cfg!(lakebed_break = "tell_no_departures") { 0 } else { self.departures };
        let mut lost = Vec::new();
        for (peer, pair) in &mut self.pairs {
            if pair.falls_silent(now, silence_max) {
                self.counters.silences += 1;
                lost.push(*peer);
            }
        }
        lost.into_iter().for_each(|peer| self.tell_link(peer, false));
        for (peer, pair) in self.pairs.iter().filter(|(_, pair)| pair.is_connected()) {
            let beat = Beat {
                cluster: self.config.cluster,
                from: self.config.node,
                to: *peer,
                life: self.config.life,
                departures,
                hears: pair.hears(),
            };
            self.counters.beats += 1;
            actions.push(HostAction::Beat { to: *peer, bytes: beat.encode() });
        }
        self.beat_at = Some(now.after(self.config.heartbeat));
        if !self.pairs.values().any(Pair::is_connected) {
            self.beat_at = None;
        }
    }

    fn on_beat(&mut self, from: NodeId, beat: &Beat) {
        let own = &self.config;
        if (beat.cluster, beat.from, beat.to) != (own.cluster, from, own.node) {
            return self.counters.unroutable += 1;
        }
        let Some(pair) = self.pairs.get_mut(&from) else { return };
        let (was_up, news) = (pair.is_up(), pair.on_beat(beat));
        let is_up = pair.is_up();
        if news.is_other_life && was_up {
            self.counters.unseen_restarts += 1;
            self.tell_link(from, false);
            if is_up {
                self.tell_link(from, true);
            }
        } else if was_up != is_up {
            self.tell_link(from, is_up);
        }
        // One that is not heard asks when it is.
        if news.has_departures && is_up {
            self.counters.departures_seen += 1;
            self.departed.insert(from);
        }
    }

    /// Groups ended on a node that lives. Whoever rests under a leader there asks it; and so does, after
    /// all that it is told in this call, whoever may by that come to rest there.
    fn ask_for_leaders_on(&mut self, peer: NodeId) {
        for (id, group) in self.groups.iter().filter(|(_, group)| group.concerns(peer)) {
            self.driving = Some(*id);
            let is_led = || group.core.status().leader == Some(peer);
            let asks = self.pending.contains_key(id) || is_led();
            self.driving = None;
            if asks {
                self.pending.entry(*id).or_default().push(Event::Link { peer, up: true });
            }
        }
    }
}
