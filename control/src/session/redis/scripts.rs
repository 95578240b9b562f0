//! What happens in Redis in one step. Every script gets the keys that it touches, all of them in one slot of a cluster.
//!
//! Beside each session there are sorted sets of ids: of all and of each user and of each state by creation, and one by expiry,
//! whose members say to which of the others a session belongs. Redis drops an expired session by itself; [`PRUNE`] takes it out
//! of the sets, and runs before anything is counted or listed. `PXAT` needs Redis 6.2 or later. A score is a number of 53 bits,
//! which microseconds since 1970 fit into until the year 2255.

/// Stores a session that nobody has. Keys: session, connection, user, state, all, expiry. Arguments: the session, its id, creation
/// and expiry in microseconds, expiry in milliseconds, its member in the set by expiry. Gives 1, or 0 if the id is taken.
pub(super) const INSERT: &str = "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PXAT', ARGV[5]) == false then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PXAT', ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[2])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[2])
redis.call('ZADD', KEYS[5], ARGV[3], ARGV[2])
redis.call('ZADD', KEYS[6], ARGV[4], ARGV[6])
return 1";

/// Puts one form of a session in place of another if that is still there. Keys: session, connection, old state, new state, expiry.
/// Arguments: the old form, the new one, the id, creation and expiry in microseconds, expiry in milliseconds, the old and the new
/// member of the set by expiry. Gives 1, or 0 if somebody was faster.
pub(super) const REPLACE: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[6])
if redis.call('GET', KEYS[2]) == ARGV[3] then redis.call('PEXPIREAT', KEYS[2], ARGV[6]) end
if KEYS[3] ~= KEYS[4] then
  redis.call('ZREM', KEYS[3], ARGV[3])
  redis.call('ZADD', KEYS[4], ARGV[4], ARGV[3])
end
if ARGV[7] ~= ARGV[8] then redis.call('ZREM', KEYS[5], ARGV[7]) end
redis.call('ZADD', KEYS[5], ARGV[5], ARGV[8])
return 1";

/// Removes a session if it is still as it was. Keys: session, connection, user, state, all, expiry. Arguments: its form, its id, its
/// member of the set by expiry. Gives 1, or 0 if somebody was faster.
pub(super) const DELETE: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('ZREM', KEYS[6], ARGV[3])
return 1";

/// Takes sessions that have expired out of the sets, unless they live on. Keys: all, expiry, then for each session it, user and state.
/// Arguments: the time in microseconds, then for each session its id and its member in the set by expiry. Gives how many went.
pub(super) const PRUNE: &str = "
local gone = 0
for i = 1, (#ARGV - 1) / 2 do
  local id, member = ARGV[2 * i], ARGV[2 * i + 1]
  local expiry = redis.call('ZSCORE', KEYS[2], member)
  if expiry and tonumber(expiry) <= tonumber(ARGV[1]) then
    redis.call('DEL', KEYS[3 * i])
    redis.call('ZREM', KEYS[3 * i + 1], id)
    redis.call('ZREM', KEYS[3 * i + 2], id)
    redis.call('ZREM', KEYS[1], id)
    redis.call('ZREM', KEYS[2], member)
    gone = gone + 1
  end
end
return gone";
