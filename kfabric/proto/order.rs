// SPDX-License-Identifier: GPL-2.0

//! Order: which operations of an endpoint to one peer overtake each other.
//!
//! An order says that an operation of one kind takes effect at the peer after those of another
//! kind that were posted before it. Nothing is ordered that was not asked for. A write or a read
//! takes effect when its bytes are placed or taken, a message when it is offered to the peer's
//! receives. Source: msg_order of fi_endpoint(3).

use core::ops::{BitOr, BitOrAssign};

/// What an operation is, as far as order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Effect {
    /// It only reads a peer's region.
    Read = 0,
    /// It changes a peer's region: a write, an atomic, a commit.
    Write = 1,
    /// It is a message.
    Send = 2,
}

/// A set of orders; empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Order(u16);

impl Order {
    /// None: everything may overtake everything.
    pub const NONE: Order = Order(0);
    /// Read after read. FI_ORDER_RAR.
    pub const RAR: Order = Order::after(Effect::Read, Effect::Read);
    /// Read after write. FI_ORDER_RAW.
    pub const RAW: Order = Order::after(Effect::Read, Effect::Write);
    /// Read after send. FI_ORDER_RAS.
    pub const RAS: Order = Order::after(Effect::Read, Effect::Send);
    /// Write after read. FI_ORDER_WAR.
    pub const WAR: Order = Order::after(Effect::Write, Effect::Read);
    /// Write after write. FI_ORDER_WAW.
    pub const WAW: Order = Order::after(Effect::Write, Effect::Write);
    /// Write after send. FI_ORDER_WAS.
    pub const WAS: Order = Order::after(Effect::Write, Effect::Send);
    /// Send after read. FI_ORDER_SAR.
    pub const SAR: Order = Order::after(Effect::Send, Effect::Read);
    /// Send after write. FI_ORDER_SAW.
    pub const SAW: Order = Order::after(Effect::Send, Effect::Write);
    /// Send after send. FI_ORDER_SAS.
    pub const SAS: Order = Order::after(Effect::Send, Effect::Send);
    /// All of them: nothing overtakes anything.
    pub const STRICT: Order = Order((1 << 9) - 1);

    const fn after(later: Effect, earlier: Effect) -> Order {
        Order(1 << (3 * later as u8 + earlier as u8))
    }

    /// Whether `later` must wait for `earlier`, if both are for one peer.
    pub const fn holds(self, later: Effect, earlier: Effect) -> bool {
        self.contains(Order::after(later, earlier))
    }

    /// Whether each order of `needed` is in the set.
    pub const fn contains(self, needed: Order) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// Whether nothing is ordered.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Those of both sets, for constants; else `|`.
    pub const fn union(self, other: Order) -> Order {
        Order(self.0 | other.0)
    }
}

impl BitOr for Order {
    type Output = Order;

    fn bitor(self, other: Order) -> Order {
        self.union(other)
    }
}

impl BitOrAssign for Order {
    fn bitor_assign(&mut self, other: Order) {
        *self = self.union(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFECTS: [Effect; 3] = [Effect::Read, Effect::Write, Effect::Send];

    #[test]
    fn each_order_holds_for_its_own_pair() {
        let named = [
            (Order::RAR, Effect::Read, Effect::Read),
            (Order::RAW, Effect::Read, Effect::Write),
            (Order::RAS, Effect::Read, Effect::Send),
            (Order::WAR, Effect::Write, Effect::Read),
            (Order::WAW, Effect::Write, Effect::Write),
            (Order::WAS, Effect::Write, Effect::Send),
            (Order::SAR, Effect::Send, Effect::Read),
            (Order::SAW, Effect::Send, Effect::Write),
            (Order::SAS, Effect::Send, Effect::Send),
        ];
        let mut all = Order::NONE;
        for (order, later, earlier) in named {
            all |= order;
            for l in EFFECTS {
                for e in EFFECTS {
                    assert_eq!(order.holds(l, e), (l, e) == (later, earlier), "{order:?}");
                }
            }
        }
        assert_eq!(all, Order::STRICT);
    }

    #[test]
    fn none_orders_nothing_and_strict_everything() {
        for l in EFFECTS {
            for e in EFFECTS {
                assert!(!Order::NONE.holds(l, e));
                assert!(Order::STRICT.holds(l, e));
            }
        }
        assert!(Order::NONE.is_none() && !Order::RAR.is_none());
        assert!(Order::STRICT.contains(Order::WAW | Order::SAS));
        assert!(!(Order::WAW | Order::SAS).contains(Order::STRICT));
    }
}
