//! What stands before the nodes: clients and publishers reach any of them, and need not know which.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewire_bench::random::Random;

#[derive(Debug)]
pub struct Balancer {
    addresses: Vec<SocketAddr>,
    /// A bit for each that gets nobody new.
    out: AtomicU64,
}

impl Balancer {
    pub fn new(addresses: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self { addresses, out: AtomicU64::new(0) })
    }

    /// One of those in service, or of all if there are none.
    pub fn pick(&self, random: &mut Random) -> usize {
        let out = self.out.load(Ordering::Relaxed);
        let nodes: Vec<usize> = (0..self.addresses.len()).filter(|node| out & (1 << node) == 0).collect();
        if nodes.is_empty() {
            return random.below(self.addresses.len());
        }
        nodes[random.below(nodes.len())]
    }

    pub fn address(&self, node: usize) -> SocketAddr {
        self.addresses[node]
    }

    pub fn is_cluster(&self) -> bool {
        self.addresses.len() > 1
    }

    pub fn take_out(&self, node: usize) {
        self.out.fetch_or(1 << node, Ordering::Relaxed);
    }

    pub fn put_back(&self, node: usize) {
        self.out.fetch_and(!(1 << node), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_out_of_service_gets_nobody() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let balancer = Balancer::new(vec![address; 3]);
        let mut random = Random::new(1);
        balancer.take_out(1);
        let picked: Vec<usize> = (0..100).map(|_| balancer.pick(&mut random)).collect();
        assert!(picked.contains(&0) && picked.contains(&2) && !picked.contains(&1));
        balancer.put_back(1);
        assert!((0..100).any(|_| balancer.pick(&mut random) == 1));
    }
}
