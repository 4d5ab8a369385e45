-- A request with another key each time, from a file with one key to a line. The request is the one that wrk would send,
-- with the key in the place of @key@.
--   FILE OFFSET once    begins at that byte; the end of the file is an error
--   FILE OFFSET again   goes on at the beginning of the file
local file, again, before, after

function init(arguments)
  file = assert(io.open(arguments[1]))
  file:seek("set", tonumber(arguments[2]))
  again = arguments[3] == "again"
  local text = wrk.format()
  local first, last = text:find("@key@", 1, true)
  before, after = text:sub(1, first - 1), text:sub(last + 1)
end

function request()
  local key = file:read("*l")
  if not key and again then
    file:seek("set", 0)
    key = file:read("*l")
  end
  if not key then
    io.stderr:write("no key is left that was not seen\n")
    os.exit(3)
  end
  return before .. key .. after
end
