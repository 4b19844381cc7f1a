//! Multi-Paxos in a small world of its own: scripted (`scripts/`) and random.
//!
//! Both run on [`cluster::Cluster`], where an oracle keeps books of what reached disks and links and checks
//! the invariants at every effect. That the checks bite was seen by breaking the code on purpose; each of
//! these was noticed:
//!
//! | broken on purpose | noticed by |
//! |---|---|
//! | acknowledges before the fsync | oracle: applied what is not chosen |
//! | promises before the fsync | oracle: went back on a promise |
//! | own vote counted before the fsync | script `formation`, oracle: applied what is not chosen |
//! | promise forgotten at restart | oracle: came back with less than it promised |
//! | accepts below its promise | assertion in the acceptor |
//! | a minority is enough to commit | oracle: applied what is not chosen |
//! | serves before its `Lead` is applied | cluster: a leader that never said Leading |
//! | read without a round | oracle: passed without what it must see; script `learner` |
//! | read joins a round already begun | script `reads`, oracle: passed without what it must see |
//! | recovers any ballot's entry instead of the highest's | oracle: two values chosen |
//! | leads without what its voters know chosen | oracle: two values chosen |
//! | another ballot's commit index believed | script `tail`, oracle: replicas differ |
//! | accepts over a gap | script `catch_up` |
//! | Prepare before the fsync | script `candidate_crash` |
//! | retained log without part of the tail | assertion in `recover` |
//! | a leader that is cut off stays | scripts `chain`, `cut_off`; random: no progress under partial cuts |
//! | grants although it hears the leader | scripts |
//! | lets others go first for ever | script `cut_off`; random: no progress under partial cuts |
//! | the leader's own canvass not taken as its fall | script `stale_promise` |
//! | lost proposals not reported | script `catch_up` |
//! | broken link to the leader ignored | script `failover` |
//! | office never returned, or given before it is drained | random: wrong leader; script `handover` |
//! | office offered to one that reaches no majority | random: no progress under partial cuts |

mod cluster;
mod golden;
mod oracle;
mod random;
mod told;
