-- Checks out batch orders, each once, and counts the answers that were 200.
--
--   curl -X POST localhost:7900/stock/batch_init/1000/1000000/1
--   curl -X POST localhost:7900/payment/batch_init/1000/1000000
--   curl -X POST localhost:7900/orders/batch_init/1000000/1000/1000/1
--   wrk -t2 -c64 -d10s -s benches/checkout.lua http://localhost:7900 -- 1000000 2
--
-- The arguments are the number of orders and of threads (as in -t): each thread takes a share of its own.
-- `kassa bench` does all of this, and reads stock and credit back; this is for those who trust wrk more.

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  local orders, shares = tonumber(args[1] or 1000000), tonumber(args[2] or 2)
  local share = math.floor(orders / shares)
  next_order = number * share
  last_order = next_order + share - 1
  committed, refused, repeated = 0, 0, 0
end

function request()
  if next_order > last_order then
    -- The orders ran out: these answers do not count.
    repeated = repeated + 1
    return wrk.format("GET", "/healthz")
  end
  local path = "/orders/checkout/" .. next_order
  next_order = next_order + 1
  return wrk.format("POST", path)
end

function response(status, headers, body)
  if status == 200 then committed = committed + 1 else refused = refused + 1 end
end

function done(summary, latency, requests)
  local committed, refused, repeated = 0, 0, 0
  for _, thread in ipairs(threads) do
    committed = committed + thread:get("committed")
    refused = refused + thread:get("refused")
    repeated = repeated + thread:get("repeated")
  end
  committed = committed - repeated
  io.write(string.format("committed checkouts: %d (%.0f a second), other answers: %d\n",
    committed, committed / (summary.duration / 1e6), refused))
  if repeated > 0 then io.write("the orders ran out: load more of them\n") end
end
