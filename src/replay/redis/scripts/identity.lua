local identity = table.remove(ARGV)
