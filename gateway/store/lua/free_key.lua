-- The prediction was refused: the key stands for nothing.
if redis.call('HGET', KEYS[1], 'id') == take() then redis.call('DEL', KEYS[1]) end
return 1
