-- Who likes each other? Topic `likes` has one record per like: its key says who likes whom, its value when; a null value is an unlike.
-- (psql sets :broker; see run.sh.)

CREATE SOURCE IF NOT EXISTS likes (liker VARCHAR, liked VARCHAR, at TIMESTAMPTZ, PRIMARY KEY (liker, liked))
  WITH (connector = 'kafka', topic = 'likes', properties.bootstrap.server = :'broker')
  FORMAT UPSERT ENCODE JSON;

-- A like joined with its answer: the same topic, twice, always at the same offsets. `<` keeps each pair once.
CREATE MATERIALIZED VIEW IF NOT EXISTS matches AS
  SELECT a.liker AS person_a, a.liked AS person_b, greatest(a.at, b.at) AS matched_at
  FROM likes a JOIN likes b ON a.liker = b.liked AND a.liked = b.liker
  WHERE a.liker < a.liked;

-- Each match is written once, also when the server is killed in between; an unlike writes a null value.
CREATE SINK IF NOT EXISTS matches_out FROM matches
  WITH (connector = 'kafka', topic = 'matches', properties.bootstrap.server = :'broker', primary_key = 'person_a,person_b')
  FORMAT UPSERT ENCODE JSON;
