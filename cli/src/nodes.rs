//! The nodes that a command may ask, as long as it runs.
//!
//! Each is connected to when it is first asked, and one that did not answer is not asked again: where
//! there are many groups it would be waited for in each of them.

use crate::{
    addresses::Addresses,
    client::{Info, Node, called},
};
use anyhow::{Context, Result, anyhow};
use std::net::SocketAddr;

pub(crate) struct Nodes(Vec<Asked>);

enum Asked {
    NotYet(SocketAddr),
    Answers(Node),
    /// Why.
    Silent(String),
}

impl Nodes {
    pub(crate) fn of(addresses: &Addresses) -> Self {
        let asked = |address: &Result<SocketAddr, String>| match address {
            Ok(address) => Asked::NotYet(*address),
            Err(unknown) => Asked::Silent(unknown.clone()),
        };
        Self(addresses.0.iter().map(asked).collect())
    }

    /// What the first says of a group that answers now.
    pub(crate) fn told_by_any(&mut self, group: Option<u64>) -> Result<Info> {
        let told = (0..self.0.len()).find_map(|at| self.info(at, group).ok());
        told.map_or_else(|| self.any()?.info(group), Ok)
    }

    /// The first that answers.
    pub(crate) fn any(&mut self) -> Result<&mut Node> {
        let answers = (0..self.0.len()).find(|at| self.node(*at).is_ok());
        self.node(answers.unwrap_or(0))
    }

    /// Who leads a group, and what it says of it. The only one is asked in any case, and may not
    /// lead: it says who does.
    pub(crate) fn leader(&mut self, group: Option<u64>) -> Result<(&mut Node, Info)> {
        if self.0.len() == 1 {
            let info = self.info(0, group)?;
            return Ok((self.node(0)?, info));
        }
        let (mut led_by, mut silent) = (None, Vec::new());
        for at in 0..self.0.len() {
            match self.info(at, group) {
                Ok(info) if leads(&info) => return Ok((self.node(at)?, info)),
                Ok(info) => led_by = led_by.or_else(|| info.number("leader")),
                Err(error) => silent.push(format!("{error:#}")),
            }
        }
        let named = called(group);
        let missing = match led_by {
            Some(node) => anyhow!("{named}node {node} leads, and none of these addresses is its"),
            None => anyhow!("{named}nobody leads"),
        };
        match silent.is_empty() {
            true => Err(missing),
            // Whoever is not asked may be the one.
            false => Err(anyhow!(silent.join("; "))).context(missing),
        }
    }

    /// What that one says of a group. One that was stopped and is there again is asked once more.
    fn info(&mut self, at: usize, group: Option<u64>) -> Result<Info> {
        let was_asked = match &self.0[at] {
            Asked::Answers(node) => Some(node.address),
            _ => None,
        };
        match (self.node(at)?.info(group), was_asked) {
            (Err(_), Some(address)) => {
                self.0[at] = Asked::NotYet(address);
                self.node(at)?.info(group)
            }
            (told, _) => told,
        }
    }

    fn node(&mut self, at: usize) -> Result<&mut Node> {
        let asked = &mut self.0[at];
        if let Asked::NotYet(address) = *asked {
            *asked = match Node::connect(address) {
                Ok(node) => Asked::Answers(node),
                Err(error) => Asked::Silent(format!("{error:#}")),
            };
        }
        match asked {
            Asked::Answers(node) => Ok(node),
            Asked::Silent(why) => Err(anyhow!(why.clone())),
            Asked::NotYet(_) => unreachable!("it was asked"),
        }
    }
}

/// Whether who tells this leads.
pub(crate) fn leads(info: &Info) -> bool {
    info.text("role") == "leader"
}
