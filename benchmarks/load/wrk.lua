-- One POST again and again. BENCH_REQUEST: folder with the files `body` and `headers`.
-- Prints one line of JSON: requests, seconds, errors, and the latencies as [microseconds, count].
local folder = os.getenv("BENCH_REQUEST")

local function slurp(name)
  local file = assert(io.open(folder .. "/" .. name, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

wrk.method = "POST"
wrk.body = slurp("body")
for name, value in slurp("headers"):gmatch("([^:\n]+): ([^\n]*)\n") do
  wrk.headers[name] = value
end

function done(summary, latency)
  local seen = {}
  for i = 1, #latency do
    local value, count = latency(i)
    if count > 0 then seen[#seen + 1] = string.format("[%d,%d]", value, count) end
  end
  local e = summary.errors
  io.write(string.format(
    '\nBENCH {"requests":%d,"seconds":%.6f,"errors":%d,"latencies_us":[%s]}\n',
    summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout, table.concat(seen, ",")))
end
