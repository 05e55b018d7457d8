WITH hopped AS (
  SELECT auction, time_bucket(INTERVAL 2 SECOND, date_time) - to_seconds(2 * k) AS window_start FROM bid, range(5) AS windows(k)
), counted AS (
  SELECT auction, window_start, count(*) AS num FROM hopped GROUP BY auction, window_start
)
SELECT auction, num FROM counted QUALIFY num = max(num) OVER (PARTITION BY window_start)
