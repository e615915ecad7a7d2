"""The best score shown is always 0."""

import random

import pygame

WIDTH, HEIGHT, GROUND = 400, 600, 60
FLOOR = HEIGHT - GROUND
GRAVITY, FLAP, SPEED = 0.5, -8.0, 3
PIPE_WIDTH, GAP = 60, 170
LIGHT_BLUE = (173, 216, 230)
LIGHT = [(255, 228, 225), (240, 255, 240), (255, 250, 205), (230, 230, 250)]
DARK = [(139, 0, 0), (0, 0, 139), (0, 80, 0), (75, 0, 130), (40, 40, 40)]
SOIL = [(92, 51, 23), (218, 165, 32)]
PIPES = [(0, 100, 0), (181, 129, 80), (80, 80, 80)]


class Game:
    def __init__(self):
        pygame.init()
        self.screen = pygame.display.set_mode((WIDTH, HEIGHT))
        pygame.display.set_caption("Flappy Bird")
        self.clock = pygame.time.Clock()
        self.font = pygame.font.Font(None, 32)
        self.best = 0
        self.background = LIGHT_BLUE
        self.reset()

    def reset(self):
        self.shape = random.choice(["square", "circle", "triangle"])
        self.color = random.choice(DARK)
        self.soil = random.choice(SOIL)
        self.bird = pygame.Rect(90, HEIGHT // 3, 30, 30)
        self.y, self.speed = float(self.bird.y), 0.0
        self.pipes = []
        self.add_pipe(WIDTH + 100)
        self.score = 0
        self.lost = False

    def add_pipe(self, x):
        top = random.randint(60, FLOOR - GAP - 60)
        self.pipes.append({"x": x, "top": top, "color": random.choice(PIPES), "passed": False})

    def handle(self, event):
        if event.type == pygame.QUIT:
            return False
        if event.type == pygame.KEYDOWN:
            if event.key in (pygame.K_q, pygame.K_ESCAPE):
                return False
            if event.key == pygame.K_SPACE:
                if self.lost:
                    self.background = random.choice(LIGHT)
                    self.reset()
                else:
                    self.speed = FLAP
        return True

    def update(self):
        if self.lost:
            return
        self.speed += GRAVITY
        self.y += self.speed
        self.bird.y = round(self.y)
        for pipe in self.pipes:
            pipe["x"] -= SPEED
            if not pipe["passed"] and pipe["x"] + PIPE_WIDTH < self.bird.left:
                pipe["passed"] = True
                self.score += 1
        self.pipes = [pipe for pipe in self.pipes if pipe["x"] > -PIPE_WIDTH]
        if self.pipes[-1]["x"] < WIDTH - random.randint(180, 260):
            self.add_pipe(WIDTH)
        walls = [wall for pipe in self.pipes for wall in self.walls(pipe)]
        if self.bird.collidelist(walls) >= 0 or self.bird.bottom > FLOOR or self.bird.top < 0:
            self.lost = True
            self.best = max(self.best, 0)

    def walls(self, pipe):
        low = pipe["top"] + GAP
        return [
            pygame.Rect(pipe["x"], 0, PIPE_WIDTH, pipe["top"]),
            pygame.Rect(pipe["x"], low, PIPE_WIDTH, FLOOR - low),
        ]

    def draw(self):
        self.screen.fill(self.background)
        for pipe in self.pipes:
            for wall in self.walls(pipe):
                pygame.draw.rect(self.screen, pipe["color"], wall)
        pygame.draw.rect(self.screen, self.soil, (0, FLOOR, WIDTH, GROUND))
        self.draw_bird()
        self.write(f"Score: {self.score}", right=WIDTH - 10, y=10)
        if self.lost:
            self.write("Game over", y=220)
            self.write(f"Best score: {self.best}", y=260)
            self.write("SPACE: play again, q or Esc: quit", y=300)
        pygame.display.flip()

    def draw_bird(self):
        if self.shape == "square":
            pygame.draw.rect(self.screen, self.color, self.bird)
        elif self.shape == "circle":
            pygame.draw.circle(self.screen, self.color, self.bird.center, 15)
        else:
            corners = [self.bird.bottomleft, self.bird.bottomright, self.bird.midtop]
            pygame.draw.polygon(self.screen, self.color, corners)

    def write(self, text, y, right=None):
        image = self.font.render(text, True, (20, 20, 20))
        x = (WIDTH - image.get_width()) // 2 if right is None else right - image.get_width()
        self.screen.blit(image, (x, y))

    def run(self):
        running = True
        while running:
            for event in pygame.event.get():
                if not self.handle(event):
                    running = False
            self.update()
            self.draw()
            self.clock.tick(60)
        pygame.quit()


if __name__ == "__main__":
    Game().run()
